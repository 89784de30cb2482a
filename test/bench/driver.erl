%% The publishing Erlang node of a comparison: reads a term a line, {Ref, Request}.,
%% carries it out in a process of its own, and prints a line when it is done:
%% `Ref ok Sent Micros LateMicros' or `Ref error Reason'.
-module(driver).

-export([main/0]).

-spec main() -> no_return().
main() ->
    io:format("ready~n"),
    loop().

-spec loop() -> no_return().
loop() ->
    case io:read("") of
        {ok, {Ref, Request}} ->
            _ = spawn(fun() -> answer(Ref, Request) end),
            loop();
        eof ->
            halt()
    end.

-spec answer(integer(), tuple()) -> ok.
answer(Ref, Request) ->
    try
        {Sent, Micros, Late} = do(Request),
        io:format("~b ok ~b ~b ~b~n", [Ref, Sent, Micros, Late])
    catch Class:Reason ->
        io:format("~b error ~0p~n", [Ref, {Class, Reason}])
    end.

-spec do(tuple()) -> {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
do({connect, Node}) ->
    pong = net_adm:ping(Node),
    {0, 0, 0};
do({run, Options}) ->
    {ok, #{sent := Sent, elapsed_us := Micros, late_us_max := Late}} = msggen:run(Options),
    {Sent, Micros, Late};
do({each, Dest, First, Last, Size}) ->
    Body = body(Size),
    _ = [Dest ! {Uid, Body} || Uid <- lists:seq(First, Last)],
    {Last - First + 1, 0, 0}.

%% Sequence number 0: in no order.
-spec body(non_neg_integer()) -> binary().
body(Size) ->
    Head = <<"0 ", (integer_to_binary(erlang:system_time(microsecond)))/binary, " ">>,
    <<Head/binary, (binary:copy(<<"x">>, max(0, Size - byte_size(Head))))/binary>>.
