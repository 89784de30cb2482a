%% Who gets the generator's messages: parts of the uids, and how often each uid
%% is drawn. The seeds are fixed: what fits once fits always.
-module(msggen_uids_SUITE).

-export([all/0]).
-export([suite/0]).

-export([parts/1]).
-export([shares/1]).
-export([counts/1]).
-export([counts_round_robin/1]).
-export([round_robin/1]).
-export([frequencies/1]).
-export([frequencies_over_all_parts/1]).
-export([million/1]).
-export([seeds_differ/1]).

-import(halley_test, [doc/1]).

%% What hangs fails soon.
suite() ->
    [{timetrap, {seconds, 60}}].

all() ->
    [Name || {Name, 1} <- ?MODULE:module_info(exports), Name =/= module_info].

parts(_) ->
    doc("Each uid is in one part, and each part draws all of its own and nothing else."),
    [begin
        Uids = lists:append([do_drawn(Distribution, N, Part, Parts, 3000) || Part <- lists:seq(0, Parts - 1)]),
        All = lists:seq(0, N - 1),
        All = lists:sort(Uids)
    end || Distribution <- [uniform, round_robin, {zipf, 0.5}], {N, Parts} <- [{1, 1}, {2, 2}, {7, 3}, {20, 1}, {20, 19}]].

shares(_) ->
    doc("A part's share is what its uids weigh together."),
    [begin
        Weights = [do_weight(Distribution, K) || K <- lists:seq(1, N)],
        Want = [lists:sum([W || {K, W} <- do_numbered(Weights), K rem Parts =:= Part]) / lists:sum(Weights)
            || Part <- lists:seq(0, Parts - 1)],
        [] = [{Distribution, N, Got, Exact} || {Got, Exact} <- lists:zip(msggen_uids:shares(Distribution, N, Parts), Want),
            abs(Got - Exact) > 1.0e-6]
    end || Distribution <- do_distributions(), {N, Parts} <- [{1, 1}, {10, 1}, {10, 3}, {10, 10}, {1000, 7}]].

counts(_) ->
    doc("The parts' numbers add up, and none is a message away from its share."),
    [begin
        Counts = msggen_uids:counts(Distribution, N, Parts, Count),
        Count = lists:sum(Counts),
        [] = [{Distribution, Got, Share} || {Got, Share} <- lists:zip(Counts, msggen_uids:shares(Distribution, N, Parts)),
            abs(Got - Count * Share) >= 1]
    end || Distribution <- do_distributions() -- [round_robin], {N, Parts} <- [{1, 1}, {10, 3}, {1000, 7}],
        Count <- [0, 1, 2, 6, 999, 1000000]].

counts_round_robin(_) ->
    doc("In turn: the parts get what the uids of a single turn after the other would get."),
    [begin
        Want = [length([K || K <- lists:seq(0, Count - 1), K rem N rem Parts =:= Part]) || Part <- lists:seq(0, Parts - 1)],
        Want = msggen_uids:counts(round_robin, N, Parts, Count)
    end || {N, Parts} <- [{1, 1}, {5, 1}, {5, 2}, {5, 5}, {7, 3}], Count <- lists:seq(0, 20)].

round_robin(_) ->
    doc("In turn means from the first to the last, and again."),
    {Picker, State} = msggen_uids:new(round_robin, 7, 1, 3),
    [0, 1, 0, 1, 0] = do_draw(Picker, State, 5),
    {Picker0, State0} = msggen_uids:new(round_robin, 7, 0, 3),
    [0, 1, 2, 0, 1] = do_draw(Picker0, State0, 5).

frequencies(_) ->
    doc("Every uid of a part is drawn as often as it weighs: Zipf below, at and above 1, whole and in parts."),
    [do_fits(Distribution, 40, Part, Parts)
        || Distribution <- do_distributions(), {Part, Parts} <- [{0, 1}, {0, 3}, {2, 3}, {0, 8}, {7, 8}]].

frequencies_over_all_parts(_) ->
    doc("With each part sending its number of messages, the whole has Zipf's distribution."),
    {N, Parts, Count} = {1000, 4, 200000},
    Uids = lists:append([do_uids({zipf, 1.0}, N, Part, Parts, Own)
        || {Part, Own} <- do_numbered(msggen_uids:counts({zipf, 1.0}, N, Parts, Count))]),
    do_check({zipf, 1.0}, Count, do_count(Uids), [{K, do_weight({zipf, 1.0}, K + 1)} || K <- lists:seq(0, N - 1)]).

million(_) ->
    doc("A million uids: the head and the tail have their weights, and drawing is fast."),
    {N, Count} = {1000000, 200000},
    {Us, Uids} = timer:tc(fun() -> do_uids(zipf, N, 0, 1, Count) end),
    true = lists:max(Uids) < N,
    Weights = [math:pow(K, -1.2) || K <- lists:seq(1, N)],
    Bound = fun(Uid) -> length([B || B <- [1, 10, 100, 1000, 10000, 100000], Uid >= B]) end,
    Sums = do_sum([{Bound(K), W} || {K, W} <- do_numbered(Weights)]),
    do_check(zipf, Count, do_count(lists:map(Bound, Uids)), lists:sort(maps:to_list(Sums))),
    %% It takes some 100 ms.
    true = Us < 5000000.

seeds_differ(_) ->
    doc("Two runs do not draw the same."),
    [A, B] = [begin
        {Picker, State} = msggen_uids:new(Distribution, 1000000, 0, 1),
        do_draw(Picker, State, 20)
    end || Distribution <- [{zipf, 0.1}, {zipf, 0.1}]],
    true = A =/= B.

%% Helpers.

do_distributions() ->
    [uniform, round_robin, zipf | [{zipf, Skew} || Skew <- [0.01, 0.5, 0.99, 1, 1.0000001, 1.00001, 1.01, 2, 5, 20]]].

do_weight(zipf, K) -> do_weight({zipf, 1.2}, K);
do_weight({zipf, Skew}, K) -> math:pow(K, -Skew);
do_weight(_, _) -> 1.

%% From 0, as the uids and the parts are.
do_numbered(List) ->
    lists:zip(lists:seq(0, length(List) - 1), List).

do_draw(_, _, 0) ->
    [];
do_draw(Picker, State0, Count) ->
    {Index, State} = msggen_uids:next(Picker, State0),
    [Index | do_draw(Picker, State, Count - 1)].

do_uids(Distribution, N, Part, Parts, Count) ->
    State = case Distribution of
        round_robin -> 0;
        _ -> rand:seed_s(exsss, {N, Part, Parts})
    end,
    {Picker, _} = msggen_uids:new(Distribution, N, Part, Parts),
    [Part + Index * Parts || Index <- do_draw(Picker, State, Count)].

%% Those that were drawn at all.
do_drawn(Distribution, N, Part, Parts, Count) ->
    lists:usort(do_uids(Distribution, N, Part, Parts, Count)).

do_fits(Distribution, N, Part, Parts) ->
    Count = 20000,
    Own = lists:seq(Part, N - 1, Parts),
    do_check({Distribution, Part, Parts}, Count, do_count(do_uids(Distribution, N, Part, Parts, Count)),
        [{K, do_weight(Distribution, K + 1)} || K <- Own]).

%% Each within five standard deviations, and all together as near as chance
%% has it: chi squared has one expected for each class, deviation sqrt(2) each.
do_check(What, Count, Counts, Weights) ->
    Sum = lists:sum([W || {_, W} <- Weights]),
    [] = maps:keys(Counts) -- [K || {K, _} <- Weights],
    Classes = [{K, maps:get(K, Counts, 0), Count * W / Sum} || {K, W} <- Weights],
    [] = [{What, K, Got, Want} || {K, Got, Want} <- Classes, abs(Got - Want) > 5 * math:sqrt(Want) + 2],
    Large = [(Got - Want) * (Got - Want) / Want || {_, Got, Want} <- Classes, Want >= 5],
    Chi = lists:sum(Large),
    true = {What, Chi} < {What, length(Large) + 5 * math:sqrt(2 * length(Large)) + 2}.

do_count(Keys) ->
    do_sum([{Key, 1} || Key <- Keys]).

do_sum(Pairs) ->
    lists:foldl(fun({Key, Value}, Sums) ->
        maps:update_with(Key, fun(Sum) -> Sum + Value end, Value, Sums)
    end, #{}, Pairs).
