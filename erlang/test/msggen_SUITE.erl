%% The articles' message generator.
-module(msggen_SUITE).

-export([all/0]).

-export([count/1]).
-export([text/1]).
-export([ids/1]).
-export([largest_id/1]).
-export([interval/1]).
-export([no_drift/1]).
-export([late_is_made_up/1]).
-export([as_fast_as_possible/1]).
-export([to_a_name/1]).
-export([to_the_router/1]).
-export([to_halley/1]).
-export([bad_arguments/1]).

-import(halley_test, [doc/1]).

all() ->
    [Name || {Name, 1} <- ?MODULE:module_info(exports), Name =/= module_info].

count(_) ->
    doc("Num messages are sent; none for 0."),
    [begin
        ok = msggen:start(do_to_self(), Num, 0, 10),
        Num = length(do_all())
    end || Num <- [0, 1, 2, 1000]].

text(_) ->
    doc("The text is `Fake message Num = N', N counting down to 1, as in the articles."),
    ok = msggen:start(do_to_self(), 3, 0, 10),
    [<<"Fake message Num = 3">>, <<"Fake message Num = 2">>, <<"Fake message Num = 1">>] =
        [Text || {_, Text, _} <- do_all()].

ids(_) ->
    doc("The ids are drawn from all of 1..Max, and about evenly."),
    ok = msggen:start(do_to_self(), 10000, 0, 10),
    Ids = [Id || {Id, _, _} <- do_all()],
    Counts = [length([Id || Id <- Ids, Id =:= N]) || N <- lists:seq(1, 10)],
    10000 = lists:sum(Counts),
    %% 1000 each; 200 away from it is more than six standard deviations.
    [] = [Count || Count <- Counts, abs(Count - 1000) > 200].

largest_id(_) ->
    doc("Max can be 1, and as large as an integer uid can be."),
    ok = msggen:start(do_to_self(), 3, 0, 1),
    [1, 1, 1] = [Id || {Id, _, _} <- do_all()],
    ok = msggen:start(do_to_self(), 1, 0, 16#7FFFFFFFFFFFFFFF),
    [_] = do_all().

interval(_) ->
    doc("The first message goes at once, each other one Interval after the one before, none earlier."),
    Start = erlang:monotonic_time(millisecond),
    ok = msggen:start(do_to_self(), 10, 50, 10),
    Times = [Time - Start || {_, _, Time} <- do_all()],
    true = hd(Times) < 50,
    [] = [{N, Time} || {N, Time} <- lists:zip(lists:seq(0, 9), Times), Time < N * 50],
    true = lists:last(Times) < 9 * 50 + 500.

no_drift(_) ->
    doc("What a send takes does not add up: the rate holds."),
    Start = erlang:monotonic_time(millisecond),
    ok = msggen:start(fun(_, _) -> timer:sleep(40) end, 20, 50, 10),
    Took = erlang:monotonic_time(millisecond) - Start,
    %% 20 * (50 + 40) is 1800.
    true = Took >= 19 * 50 + 40,
    true = Took < 1500.

late_is_made_up(_) ->
    doc("After a send that took long, the messages that were due meanwhile follow at once."),
    Self = self(),
    Slow = fun(Id, Text) ->
        Self ! {message, Id, Text, erlang:monotonic_time(millisecond)},
        Text =:= <<"Fake message Num = 10">> andalso timer:sleep(500)
    end,
    Start = erlang:monotonic_time(millisecond),
    ok = msggen:start(Slow, 10, 50, 10),
    [_ | Times] = [Time - Start || {_, _, Time} <- do_all()],
    [] = [Time || Time <- Times, Time < 500],
    true = lists:last(Times) < 900.

as_fast_as_possible(_) ->
    doc("Interval 0 does not wait."),
    {Us, ok} = timer:tc(fun() -> msggen:start(fun(_, _) -> ok end, 100000, 0, 1000000) end),
    true = Us < 5000000.

to_a_name(_) ->
    doc("To {Name, Node} goes what the articles sent their C node: {Id, Text}."),
    true = register(msggen_test, self()),
    ok = msggen:start({msggen_test, node()}, 1, 0, 1),
    receive
        {1, <<"Fake message Num = 1">>} -> ok
    after 1000 ->
        error(nothing)
    end.

to_the_router(_) ->
    doc("Through the router, as in the articles."),
    {ok, Router} = router:start_link(),
    ok = router:login(1, self()),
    ok = msggen:start(router, 2, 0, 1),
    receive
        {router_msg, <<"Fake message Num = 2">>} -> ok
    end,
    receive
        {router_msg, <<"Fake message Num = 1">>} -> ok
    end,
    ok = router:logout(self()),
    ok = gen_server:stop(Router).

to_halley(_) ->
    doc("start/3 is for Halley: without the application it fails, without a Halley node nobody hears it."),
    {not_started, halley} = try msggen:start(1, 0, 1) catch error:Reason -> Reason end,
    {ok, Apps} = application:ensure_all_started(halley),
    ok = msggen:start(10, 0, 1),
    [ok = application:stop(App) || App <- lists:reverse(Apps)].

bad_arguments(_) ->
    doc("What cannot be is refused before the first message."),
    [function_clause = try apply(msggen, start, [do_to_self() | Args]) catch error:Reason -> Reason end
        || Args <- [[-1, 0, 1], [1, -1, 1], [1, 0, 0], [1, 0, 16#8000000000000000], [many, 0, 1]]],
    function_clause = try msggen:start(nowhere, 1, 0, 1) catch error:Reason -> Reason end,
    [] = do_all().

%% Helpers.

do_to_self() ->
    Self = self(),
    fun(Id, Text) -> Self ! {message, Id, Text, erlang:monotonic_time(millisecond)} end.

do_all() ->
    receive
        {message, Id, Text, Time} -> [{Id, Text, Time} | do_all()]
    after 0 ->
        []
    end.
