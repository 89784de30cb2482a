%% @doc The message generator of "A Million-user Comet Application with Mochiweb".
%%
%% It runs in the caller until the last message is sent. For more traffic,
%% spawn it many times:
%% ```
%% [spawn(msggen, start, [1000000, 60, 1000000]) || _ <- lists:seq(1, 1000)].
%% '''
-module(msggen).

%% API.
-export([start/3]).
-export([start/4]).

-define(MAX_ID, 16#7FFFFFFFFFFFFFFF).

-type id() :: 1..16#7FFFFFFFFFFFFFFF.
-type dest() :: halley
    | router
    | {Name :: atom(), node()}
    | fun((id(), binary()) -> term()).
%% Where the messages go: to all Halley nodes that are up, through the articles'
%% router, to a name on a node (as the articles drove their C node), or to a fun.
-export_type([id/0, dest/0]).

%% API.

%% @doc Send Num messages to the users of Halley, one every Interval
%% milliseconds, each to a uid from 1 to Max drawn at random.
%%
%% The text is `Fake message Num = N'; N counts down to 1, as in the articles.
%% Interval 0 sends as fast as possible.
-spec start(Num :: non_neg_integer(), Interval :: non_neg_integer(), Max :: id()) -> ok.
start(Num, Interval, Max) ->
    start(halley, Num, Interval, Max).

%% @doc The same, to another destination.
-spec start(dest(), Num :: non_neg_integer(), Interval :: non_neg_integer(), Max :: id()) -> ok.
start(Dest, Num, Interval, Max) when
        is_integer(Num), Num >= 0, is_integer(Interval), Interval >= 0,
        is_integer(Max), Max >= 1, Max =< ?MAX_ID ->
    loop(send_fun(Dest), Num, Interval, Max, erlang:monotonic_time(millisecond)).

%% Internal.

-spec send_fun(dest()) -> fun((id(), binary()) -> term()).
send_fun(halley) -> fun halley:send/2;
send_fun(router) -> fun router:send/2;
send_fun({Name, Node} = Dest) when is_atom(Name), is_atom(Node) ->
    fun(Id, Text) -> Dest ! {Id, Text} end;
send_fun(Fun) when is_function(Fun, 2) -> Fun.

%% Due is counted from the start, and not from the last message: what a send
%% or a late timer took is made up for, and the rate holds.
-spec loop(fun((id(), binary()) -> term()), non_neg_integer(), non_neg_integer(),
    id(), integer()) -> ok.
loop(_, 0, _, _, _) ->
    ok;
loop(Send, Num, Interval, Max, Due) ->
    ok = sleep_until(Due),
    _ = Send(rand:uniform(Max), <<"Fake message Num = ", (integer_to_binary(Num))/binary>>),
    loop(Send, Num - 1, Interval, Max, Due + Interval).

-spec sleep_until(integer()) -> ok.
sleep_until(Due) ->
    case Due - erlang:monotonic_time(millisecond) of
        Wait when Wait > 0 -> timer:sleep(Wait);
        _ -> ok
    end.
