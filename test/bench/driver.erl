%% The publishing Erlang node of a comparison: reads a term a line, {Ref, Request}.,
%% carries it out in a process of its own, and prints a line when it is done:
%% `Ref ok Micros' or `Ref error Reason'. {stop, Ref}. ends one.
-module(driver).

-export([main/0]).

-spec main() -> no_return().
main() ->
    io:format("ready~n"),
    loop(#{}).

-spec loop(#{integer() => pid()}) -> no_return().
loop(Running) ->
    case io:read("") of
        {ok, {stop, Ref}} ->
            exit(maps:get(Ref, Running), kill),
            loop(Running);
        {ok, {Ref, Request}} ->
            loop(Running#{Ref => spawn(fun() -> answer(Ref, Request) end)});
        eof ->
            halt()
    end.

-spec answer(integer(), tuple()) -> ok.
answer(Ref, Request) ->
    try
        io:format("~b ok ~b~n", [Ref, do(Request)])
    catch Class:Reason ->
        io:format("~b error ~0p~n", [Ref, {Class, Reason}])
    end.

%% Returns how many microseconds sending took.
-spec do(tuple()) -> non_neg_integer().
do({connect, Node}) ->
    pong = net_adm:ping(Node),
    0;
do({run, Options}) ->
    {ok, #{elapsed_us := Micros}} = msggen:run(Options),
    Micros;
do({each, Dest, First, Last, Size}) ->
    Body = body(Size),
    _ = [Dest ! {Uid, Body} || Uid <- lists:seq(First, Last)],
    0;
do({all, Dest, Size}) ->
    _ = Dest ! {all, body(Size)},
    0.

%% Sequence number 0: in no order.
-spec body(non_neg_integer()) -> binary().
body(Size) ->
    Head = <<"0 ", (integer_to_binary(erlang:system_time(microsecond)))/binary, " ">>,
    <<Head/binary, (binary:copy(<<"x">>, max(0, Size - byte_size(Head))))/binary>>.
