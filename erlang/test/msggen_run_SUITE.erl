%% The generator in earnest: what it sends, when, and what it leaves behind.
-module(msggen_run_SUITE).

-export([all/0]).
-export([suite/0]).
-export([groups/0]).
-export([init_per_suite/1]).
-export([end_per_suite/1]).

%% messages.
-export([defaults/1]).
-export([body/1]).
-export([sizes/1]).
-export([numbers/1]).
-export([first_number/1]).
-export([one_owner/1]).
-export([count/1]).
-export([round_robin_in_turn/1]).
-export([more_senders_than_uids/1]).
-export([large_uids/1]).

%% time.
-export([rate/1]).
-export([rate_of_several_senders/1]).
-export([rate_by_weight/1]).
-export([late_is_made_up/1]).
-export([stamp_now/1]).
-export([start_later/1]).
-export([start_in_the_past/1]).
-export([duration_flat_out/1]).
-export([duration_lasts/1]).
-export([given_up_after_the_end/1]).
-export([first_limit_counts/1]).

%% destinations.
-export([to_a_name/1]).
-export([lists/1]).
-export([lists_of_what_is_due/1]).
-export([lists_of_large_bodies/1]).
-export([one_by_one/1]).
-export([to_the_router/1]).
-export([to_halley/1]).
-export([suspended/1]).

%% life.
-export([progress/1]).
-export([progress_raises/1]).
-export([sender_raises/1]).
-export([sender_raises_in_a_run/1]).
-export([start_run/1]).
-export([stop/1]).
-export([stop_by_another/1]).
-export([stop_before_the_start/1]).
-export([stop_when_over/1]).
-export([stop_while_it_hangs/1]).
-export([owner_ends/1]).
-export([run_is_killed/1]).
-export([caller_traps_exits/1]).
-export([odd_messages/1]).

%% options.
-export([limits/1]).
-export([bad_options/1]).

-import(halley_test, [doc/1, do_on/2, do_eventually/1, do_name/1]).

%% What hangs fails soon.
suite() ->
    [{timetrap, {seconds, 60}}].

all() ->
    [{group, Group} || {Group, _, _} <- groups()].

groups() ->
    [
        {messages, [], [defaults, body, sizes, numbers, first_number, one_owner, count, round_robin_in_turn,
            more_senders_than_uids, large_uids]},
        {time, [], [rate, rate_of_several_senders, rate_by_weight, late_is_made_up, stamp_now, start_later,
            start_in_the_past, duration_flat_out, duration_lasts, given_up_after_the_end, first_limit_counts]},
        {destinations, [], [to_a_name, lists, lists_of_what_is_due, lists_of_large_bodies, one_by_one,
            to_the_router, to_halley, suspended]},
        {life, [], [progress, progress_raises, sender_raises, sender_raises_in_a_run, start_run, stop,
            stop_by_another, stop_before_the_start, stop_when_over, stop_while_it_hangs, owner_ends,
            run_is_killed, caller_traps_exits, odd_messages]},
        {options, [], [limits, bad_options]}
    ].

init_per_suite(Config) ->
    halley_test:do_start_epmd(Config).

end_per_suite(Config) ->
    halley_test:do_stop_epmd(Config).

%% Messages.

defaults(_) ->
    doc("One sender, bodies of 100 bytes, uids from 1 to 10000; the report has all keys."),
    {ok, Report} = msggen:run(#{dest => do_to_self(), count => 500}),
    #{sent := 500, bytes := 50000, senders := 1, late_us_max := 0, suspended := 0, suspended_us := 0,
        elapsed_us := Elapsed, rate := Rate} = Report,
    8 = map_size(Report),
    true = Elapsed > 0,
    true = abs(Rate - 500 * 1.0e6 / Elapsed) < 1.0e-3,
    Got = do_all(),
    500 = length(Got),
    [] = [Uid || {Uid, _, _} <- Got, Uid < 1 orelse Uid > 10000],
    %% Uniform: 500 of 10000 are nearly all different ones.
    true = length(lists:usort([Uid || {Uid, _, _} <- Got])) > 400.

body(_) ->
    doc("A body is the number, a space, microseconds since 1970, a space, and padding."),
    Before = os:system_time(microsecond),
    {ok, _} = msggen:run(#{dest => do_to_self(), count => 3, uids => {7, 7}, size => 60}),
    After = os:system_time(microsecond),
    Got = [Body || {7, Body, _} <- do_all()],
    [begin
        60 = byte_size(Body),
        {match, [Seq, Micros]} = re:run(Body, "\\A([1-9][0-9]*) ([0-9]{16}) x*\\z", [{capture, all_but_first, binary}]),
        true = binary_to_integer(Seq) =:= N,
        true = binary_to_integer(Micros) >= Before,
        true = binary_to_integer(Micros) =< After
    end || {N, Body} <- lists:zip([1, 2, 3], Got)].

sizes(_) ->
    doc("A body has as many bytes as asked for, and at least what its head needs; {Min, Max} draws any of them."),
    %% "1 1700000000000000 " has 19.
    [begin
        {ok, #{bytes := Bytes}} = msggen:run(#{dest => do_to_self(), count => 200, uids => {1, 1000000},
            distribution => round_robin, size => Size}),
        Got = [byte_size(Body) || {_, Body, _} <- do_all()],
        Bytes = lists:sum(Got),
        Want = lists:usort(Got)
    end || {Size, Want} <- [{0, [19]}, {18, [19]}, {19, [19]}, {20, [20]}, {1048576, [1048576]}, {{30, 30}, [30]},
        {{30, 33}, [30, 31, 32, 33]}, {{0, 21}, [19, 20, 21]}]].

numbers(_) ->
    doc("However many senders and however drawn, each uid's numbers are 1, 2, 3 without gap, doubled or reordered."),
    [begin
        ok = do_in_order_seqs(Seqs),
        5000 = lists:sum([length(S) || S <- maps:values(Seqs)]),
        [] = [Uid || Uid <- maps:keys(Seqs), Uid < 5 orelse Uid > 104]
    end || Distribution <- [uniform, zipf, {zipf, 0.5}, round_robin], Senders <- [1, 3, 8],
        Seqs <- [do_seqs(#{distribution => Distribution, senders => Senders, count => 5000, uids => {5, 104}})]].

first_number(_) ->
    doc("A second run can go on with the numbers of the first."),
    Options = #{uids => {1, 10}, distribution => round_robin, senders => 3},
    First = do_seqs(Options#{count => 50}),
    Second = do_seqs(Options#{count => 50, seq => 6}),
    [{[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]}] =
        lists:usort([{maps:get(Uid, First), maps:get(Uid, Second)} || Uid <- lists:seq(1, 10)]).

one_owner(_) ->
    doc("A uid's messages all come from one sender, and every sender has a part."),
    {ok, #{senders := 4}} = msggen:run(#{dest => do_to_self(), count => 1000, senders => 4, uids => {1, 41}}),
    Owners = lists:usort([{Uid, Sender} || {Uid, _, Sender} <- do_all()]),
    41 = length(Owners),
    [10, 10, 10, 11] = lists:sort([length([1 || {_, Owner} <- Owners, Owner =:= Sender])
        || Sender <- lists:usort([Sender || {_, Sender} <- Owners])]).

count(_) ->
    doc("Exactly count messages, whatever the senders."),
    [begin
        {ok, #{sent := Count}} = msggen:run(Options#{dest => do_to_self(), count => Count, senders => Senders}),
        Count = length(do_all())
    end || Count <- [0, 1, 2, 5, 1001], Senders <- [1, 4],
        Options <- [#{}, #{distribution => zipf}, #{rate => 1000000}, #{batch => 7}]].

round_robin_in_turn(_) ->
    doc("In turn: all uids get the same number, and with one sender in their order."),
    {ok, _} = msggen:run(#{dest => do_to_self(), count => 7, uids => {3, 5}, distribution => round_robin}),
    [3, 4, 5, 3, 4, 5, 3] = [Uid || {Uid, _, _} <- do_all()],
    Seqs = do_seqs(#{count => 700, uids => {1, 100}, distribution => round_robin, senders => 7}),
    [7] = lists:usort([length(S) || S <- maps:values(Seqs)]),
    100 = map_size(Seqs).

more_senders_than_uids(_) ->
    doc("With more senders than uids there are as many as uids, and the report says so."),
    {ok, #{senders := 3, sent := 300}} =
        msggen:run(#{dest => do_to_self(), count => 300, senders => 50, uids => {1, 3}}),
    3 = length(lists:usort([Sender || {_, _, Sender} <- do_all()])).

large_uids(_) ->
    doc("Uids can be as large as an integer uid can be."),
    Max = 16#7FFFFFFFFFFFFFFF,
    {ok, _} = msggen:run(#{dest => do_to_self(), count => 6, uids => {Max - 2, Max}, distribution => round_robin, senders => 2}),
    [{Uid, 2}, {Uid1, 2}, {Max, 2}] = do_count([Uid || {Uid, _, _} <- do_all()]),
    {Uid, Uid1} = {Max - 2, Max - 1}.

%% Time.

rate(_) ->
    doc("Messages are due one interval after the other from the start, and none is sent before it is due."),
    Now = os:system_time(microsecond),
    {ok, #{late_us_max := Late, elapsed_us := Elapsed}} =
        msggen:run(#{dest => do_to_self(), count => 101, rate => 200, stamp => due, start => erlang:system_time(microsecond)}),
    Got = do_stamps(do_all_times()),
    101 = length(Got),
    %% `due' stamps are the schedule itself; a microsecond comes of the two clocks.
    Start = element(1, hd(Got)),
    true = abs(Start - Now) < 200000,
    [] = [{N, Due - Start} || {N, {Due, _}} <- lists:zip(lists:seq(0, 100), Got), abs(Due - Start - N * 5000) > 2000],
    [] = [At - Due || {Due, At} <- Got, At < Due - 2000],
    true = lists:max([At - Due || {Due, At} <- Got]) < Late + 100000,
    true = Elapsed >= 500000,
    true = Elapsed < 1500000.

rate_of_several_senders(_) ->
    doc("The rate is that of all senders together, and they are due one after the other."),
    {ok, #{elapsed_us := Elapsed, senders := 4}} =
        msggen:run(#{dest => do_to_self(), count => 200, rate => 400, stamp => due, senders => 4, uids => {1, 100}}),
    Got = [Due || {Due, _} <- do_stamps(do_all_times())],
    200 = length(Got),
    true = Elapsed >= 490000,
    true = Elapsed < 1500000,
    %% 2500 us apart each, and not four of them at every 10000.
    Sorted = [First | _] = lists:sort(Got),
    [] = [{N, Due - First} || {N, Due} <- lists:zip(lists:seq(0, 199), Sorted), abs(Due - First - N * 2500) > 2000].

rate_by_weight(_) ->
    doc("With Zipf's distribution the senders share the rate by the weights of their uids."),
    %% 1, 1/4, 1/9, 1/16: by twos, 1.111 and 0.3125.
    {ok, #{sent := Sent}} = msggen:run(#{dest => do_to_self(), duration => 500, rate => 4000, senders => 2, uids => {1, 4},
        distribution => {zipf, 2}}),
    Got = [Uid || {Uid, _, _} <- do_all()],
    Sent = length(Got),
    true = abs(Sent - 2000) =< 2,
    Odd = length([Uid || Uid <- Got, Uid rem 2 =:= 1]),
    true = abs(Odd / Sent - 1.1111 / 1.4236) < 0.002.

late_is_made_up(_) ->
    doc("After a send that took long the messages that were due meanwhile follow at once, with the times they were due."),
    Self = self(),
    Slow = fun(Uid, Body) ->
        Self ! {message, Uid, Body, self(), os:system_time(microsecond)},
        re:run(Body, "^10 ") =/= nomatch andalso timer:sleep(300)
    end,
    {ok, #{late_us_max := Late, suspended := Suspended, suspended_us := SuspendedUs, elapsed_us := Elapsed}} =
        msggen:run(#{dest => Slow, count => 50, rate => 100, stamp => due, uids => {1, 1}}),
    Got = do_stamps(do_all_times()),
    50 = length(Got),
    %% Message 11 was due 10 ms after the one that took 300.
    true = Late >= 285000,
    true = Late < 1000000,
    true = Suspended >= 1,
    true = SuspendedUs >= 300000,
    true = Elapsed < 1200000,
    {Due10, _} = lists:nth(10, Got),
    {Due11, At11} = lists:nth(11, Got),
    true = abs(Due11 - Due10 - 10000) < 2000,
    true = At11 - Due11 >= 280000,
    {_, At35} = lists:nth(35, Got),
    true = At35 - At11 < 200000.

stamp_now(_) ->
    doc("`now' is when the message was built, also when that is late."),
    Self = self(),
    Slow = fun(Uid, Body) ->
        Self ! {message, Uid, Body, self(), os:system_time(microsecond)},
        timer:sleep(20)
    end,
    {ok, #{late_us_max := Late}} = msggen:run(#{dest => Slow, count => 10, rate => 1000, uids => {1, 1}}),
    true = Late > 9 * 19000,
    %% 20 ms is what the message before took: it does not show.
    Behind = lists:sort([At - Stamp || {Stamp, At} <- do_stamps(do_all_times())]),
    true = hd(Behind) >= 0,
    true = lists:nth(5, Behind) < 15000.

start_later(_) ->
    doc("The first message goes at `start', not before; until then nothing is counted."),
    Start = erlang:system_time(microsecond) + 300000,
    {ok, Pid} = msggen:start_run(#{dest => do_to_self(), count => 5, start => Start, rate => 1000, stamp => due}),
    #{sent := 0, elapsed_us := 0} = msggen:stats(Pid),
    {ok, #{sent := 5, elapsed_us := Elapsed}} = do_result(Pid),
    true = Elapsed >= 4000,
    true = Elapsed < 250000,
    [{Due, At} | _] = do_stamps(do_all_times()),
    true = abs(Due - Start) < 2000,
    true = At >= Start - 2000.

start_in_the_past(_) ->
    doc("What was due since a start that is over is made up for."),
    Start = erlang:system_time(microsecond) - 1000000,
    {ok, #{sent := 1000, late_us_max := Late}} =
        msggen:run(#{dest => do_to_self(), count => 1000, start => Start, rate => 1000, stamp => due}),
    true = Late >= 1000000,
    true = length(do_all()) =:= 1000.

duration_flat_out(_) ->
    doc("Without a rate it sends as fast as it can for as long as was asked for."),
    {ok, #{elapsed_us := Elapsed, sent := Sent, rate := Rate}} =
        msggen:run(#{dest => fun(_, _) -> ok end, duration => 300, senders => 2}),
    true = Elapsed >= 300000,
    true = Elapsed < 1000000,
    %% It is more than a million a second; this is not the place to measure.
    true = Sent > 10000,
    true = Rate > 10000.

duration_lasts(_) ->
    doc("With a rate as many are sent as are due before the end, and the run lasts to its end."),
    {ok, #{elapsed_us := Elapsed, sent := 30}} =
        msggen:run(#{dest => fun(_, _) -> ok end, duration => 300, rate => 100}),
    true = Elapsed >= 300000,
    {ok, #{elapsed_us := Elapsed1, sent := 1}} =
        msggen:run(#{dest => fun(_, _) -> ok end, duration => 300, rate => 0.1}),
    true = Elapsed1 >= 300000,
    {ok, #{sent := 0}} = msggen:run(#{dest => fun(_, _) -> ok end, duration => 0, rate => 100}).

given_up_after_the_end(_) ->
    doc("What a slow destination has not taken a while after the end is given up, and not sent for ever."),
    {ok, #{elapsed_us := Elapsed, sent := Sent}} =
        msggen:run(#{dest => fun(_, _) -> timer:sleep(10) end, duration => 200, rate => 1000}),
    true = Elapsed < 2000000,
    true = Sent >= 1,
    true = Sent =< 40.

first_limit_counts(_) ->
    doc("Of count and duration the one that is reached first ends the run."),
    {Us, {ok, #{sent := 10}}} =
        timer:tc(fun() -> msggen:run(#{dest => fun(_, _) -> ok end, count => 10, duration => 60000, rate => 1000}) end),
    true = Us < 5000000,
    {ok, #{sent := Sent}} =
        msggen:run(#{dest => fun(_, _) -> ok end, count => 1000000, duration => 100, rate => 100}),
    10 = Sent.

%% Destinations.

to_a_name(_) ->
    doc("To {Name, Node} single messages go as {Uid, Body}."),
    true = register(msggen_run_test, self()),
    {ok, #{sent := 100}} = msggen:run(#{dest => {msggen_run_test, node()}, count => 100, uids => {1, 1}}),
    100 = length(do_pairs()),
    true = unregister(msggen_run_test).

lists(_) ->
    doc("batch N: lists of N in one message, the last one of what is left; each uid's numbers are in order."),
    true = register(msggen_run_test, self()),
    {ok, #{sent := 250, bytes := Bytes}} = msggen:run(#{dest => {msggen_run_test, node()}, count => 250, batch => 100,
        uids => {1, 9}, size => {30, 60}}),
    Lists = do_lists(),
    [100, 100, 50] = [length(List) || List <- Lists],
    Bytes = lists:sum([byte_size(Body) || List <- Lists, {_, Body} <- List]),
    ok = do_in_order(do_by_uid([{Uid, Body} || List <- Lists, {Uid, Body} <- List])),
    %% Several senders: each fills its own.
    {ok, #{sent := 1000}} = msggen:run(#{dest => {msggen_run_test, node()}, count => 1000, batch => 10, senders => 5,
        uids => {1, 50}, distribution => round_robin}),
    Lists5 = do_lists(),
    100 = length(Lists5),
    ok = do_in_order(do_by_uid(lists:append(Lists5))),
    true = unregister(msggen_run_test).

lists_of_what_is_due(_) ->
    doc("A list is not waited for until it is full: what is due goes, each with the time it was due."),
    true = register(msggen_run_test, self()),
    {ok, #{sent := 50}} = msggen:run(#{dest => {msggen_run_test, node()}, count => 50, rate => 200, batch => 1000,
        stamp => due, uids => {1, 1}}),
    Lists = do_lists(),
    true = length(Lists) >= 10,
    Stamps = [do_stamp(Body) || List <- Lists, {1, Body} <- List],
    [] = [{N, Due} || {N, Due} <- lists:zip(lists:seq(0, 49), [Due - hd(Stamps) || Due <- Stamps]), abs(Due - N * 5000) > 2000],
    %% And what is late goes together: a second's worth at once.
    {ok, #{sent := 200}} = msggen:run(#{dest => {msggen_run_test, node()}, count => 200, rate => 200, batch => 1000,
        stamp => due, start => erlang:system_time(microsecond) - 2000000, uids => {1, 1}}),
    [Late] = do_lists(),
    Stamps1 = [do_stamp(Body) || {1, Body} <- Late],
    [] = [{N, Due} || {N, Due} <- lists:zip(lists:seq(0, 199), [Due - hd(Stamps1) || Due <- Stamps1]), abs(Due - N * 5000) > 2],
    true = unregister(msggen_run_test).

lists_of_large_bodies(_) ->
    doc("A list has at most 1 MiB of bodies, or one body."),
    true = register(msggen_run_test, self()),
    [begin
        {ok, #{sent := 12}} = msggen:run(#{dest => {msggen_run_test, node()}, count => 12, batch => 10, size => Size}),
        Want = [length(List) || List <- do_lists()]
    end || {Size, Want} <- [{1048576, lists:duplicate(12, 1)}, {524288, lists:duplicate(6, 2)},
        {524289, lists:duplicate(12, 1)}, {104857, [10, 2]}, {104858, [9, 3]}]],
    true = unregister(msggen_run_test).

one_by_one(_) ->
    doc("A fun gets one message at a time, whatever the batch."),
    Seqs = do_seqs(#{count => 100, batch => 10, uids => {1, 2}}),
    100 = lists:sum([length(S) || S <- maps:values(Seqs)]),
    ok = do_in_order_seqs(Seqs).

to_the_router(_) ->
    doc("Through the articles' router, one by one."),
    {ok, Router} = router:start_link(),
    ok = router:login(1, self()),
    {ok, #{sent := 20}} = msggen:run(#{dest => router, count => 20, batch => 10, uids => {1, 1}}),
    Bodies = do_routed(),
    20 = length(Bodies),
    ok = do_in_order(#{1 => Bodies}),
    ok = router:logout(self()),
    ok = gen_server:stop(Router).

to_halley(Config) ->
    doc("halley is every Halley that is up: single messages and lists of halley:send_many/1."),
    A = halley_test:do_start_node(Config, do_name("a"), []),
    Fakes = [halley_test:do_start_node(Config, do_name("fake"), ["-hidden"]) || _ <- [1, 2]],
    try
        ok = halley_test:do_start_app(A, []),
        [begin
            ok = do_on(Fake, fun() -> halley_fake:start(fun(_) -> #{} end) end),
            true = do_on(A, fun() -> net_kernel:connect_node(Node) end)
        end || Fake = {_, Node} <- Fakes],
        ok = do_eventually(fun() -> length(do_on(A, fun halley:nodes/0)) =:= 2 end),
        {ok, #{sent := 30}} = do_on(A, fun() -> msggen:run(#{count => 30, uids => {1, 3}}) end),
        [begin
            ok = do_eventually(fun() -> length(do_on(Fake, fun halley_fake:peek/0)) =:= 30 end),
            ok = do_in_order(do_by_uid(do_on(Fake, fun halley_fake:got/0)))
        end || Fake <- Fakes],
        {ok, #{sent := 250}} = do_on(A, fun() -> msggen:run(#{dest => halley, count => 250, batch => 250, uids => {1, 3}}) end),
        [begin
            ok = do_eventually(fun() -> length(do_on(Fake, fun halley_fake:peek/0)) =:= 3 end),
            Lists = do_on(Fake, fun halley_fake:got/0),
            [100, 100, 50] = [length(List) || List <- Lists],
            ok = do_in_order(do_by_uid(lists:append(Lists)))
        end || Fake <- Fakes]
    after
        [halley_test:do_stop_node(Node) || Node <- [A | Fakes]]
    end.

suspended(Config) ->
    doc("A sender that Erlang suspends, because the other node does not read, is counted; a stop ends it all the same."),
    A = halley_test:do_start_node(Config, do_name("a"), []),
    B = {_, NodeB} = halley_test:do_start_node(Config, do_name("b"), []),
    OsPid = do_on(B, fun os:getpid/0),
    try
        true = do_on(A, fun() -> net_kernel:connect_node(NodeB) end),
        [] = os:cmd("kill -STOP " ++ OsPid),
        Result = do_on(A, fun() ->
            {ok, Pid} = msggen:start_run(#{dest => {nobody, NodeB}, rate => 1000, size => 100000, stamp => due,
                uids => {1, 1}}),
            %% The buffers of TCP and of Erlang take some MB, then no more.
            ok = do_eventually(fun() -> do_stuck(Pid) end),
            {Us, Result} = timer:tc(fun() -> msggen:stop(Pid) end),
            true = Us >= 900000,
            true = Us < 10000000,
            false = is_process_alive(Pid),
            Result
        end),
        {ok, #{sent := Sent, senders := 1}} = Result,
        true = Sent > 10,
        true = Sent < 10000,
        %% One that is let go on: the time that it was suspended is in the report.
        Parent = self(),
        Runner = spawn_link(fun() ->
            Parent ! {self(), do_on(A, fun() ->
                msggen:run(#{dest => {nobody, NodeB}, count => 10, size => 100000, uids => {1, 1}})
            end)}
        end),
        timer:sleep(300),
        [] = os:cmd("kill -CONT " ++ OsPid),
        receive
            {Runner, {ok, #{sent := 10, suspended := N, suspended_us := Us}}} ->
                true = N >= 1,
                true = Us >= 200000
        after 15000 ->
            error(still_suspended)
        end
    after
        os:cmd("kill -CONT " ++ OsPid),
        [halley_test:do_stop_node(Node) || Node <- [A, B]]
    end.

%% Life.

progress(_) ->
    doc("progress is called in the caller each `every' ms with the report so far."),
    Self = self(),
    Progress = fun(Report) ->
        Self = self(),
        put(reports, [Report | do_get_reports()])
    end,
    {ok, Last = #{sent := 400}} = msggen:run(#{dest => fun(_, _) -> ok end, count => 400, rate => 1000, progress => Progress,
        every => 50}),
    Reports = lists:reverse(do_get_reports()),
    true = length(Reports) >= 4,
    true = length(Reports) =< 9,
    Sent = [S || #{sent := S} <- Reports],
    Sent = lists:sort(Sent),
    true = hd(Sent) >= 40,
    true = lists:last(Sent) =< 400,
    [true = lists:sort(maps:keys(Last)) =:= lists:sort(maps:keys(Report)) || Report <- Reports],
    %% By default every second.
    erase(reports),
    {ok, _} = msggen:run(#{dest => fun(_, _) -> ok end, duration => 300, rate => 10, progress => Progress}),
    [] = do_get_reports().

progress_raises(_) ->
    doc("What progress raises is raised by run/1, and the run is over."),
    Before = processes(),
    false = process_flag(trap_exit, true),
    enough = try
        msggen:run(#{dest => do_to_self(), duration => 60000, rate => 1000, every => 50, progress => fun(_) -> throw(enough) end})
    catch
        throw:Reason -> Reason
    end,
    true = process_flag(trap_exit, false),
    _ = do_all(),
    ok = do_nothing_left(Before).

sender_raises(_) ->
    doc("What a sender raises is raised by run/1, with its stack; no other sender goes on."),
    Before = processes(),
    Raise = fun(3, _) -> error(three); (_, _) -> ok end,
    [begin
        {error, three, [_ | _]} = try
            msggen:run(#{dest => Raise, duration => 60000, rate => 10000, uids => {1, 10}, senders => 5})
        catch
            Class:Reason:Stack -> {Class, Reason, Stack}
        end,
        ok = do_nothing_left(Before)
    end || _ <- lists:seq(1, 20)],
    {not_started, halley} = do_raised(fun() -> msggen:run(#{count => 1}) end),
    {noproc, _} = do_raised(fun() -> msggen:run(#{dest => router, count => 1}) end),
    {not_connected, 'nobody@localhost'} =
        do_raised(fun() -> msggen:run(#{dest => {httpd, 'nobody@localhost'}, count => 1}) end),
    ball = do_raised(fun() -> msggen:run(#{dest => fun(_, _) -> throw(ball) end, count => 1}) end),
    %% As from a link or a kill, and not by raising.
    killed = do_raised(fun() -> msggen:run(#{dest => fun(_, _) -> exit(self(), kill) end, count => 1}) end),
    ok = do_nothing_left(Before).

sender_raises_in_a_run(_) ->
    doc("A run that was started ends with a message that says what a sender raised."),
    Before = processes(),
    {ok, Pid} = msggen:start_run(#{dest => fun(_, _) -> error(no) end}),
    {error, {error, no, [_ | _]}} = do_result(Pid),
    ok = do_nothing_left(Before).

start_run(_) ->
    doc("start_run/1 does not wait; the result comes as a message, and stats/1 tells on the way."),
    Before = processes(),
    {ok, Pid} = msggen:start_run(#{dest => fun(_, _) -> ok end, count => 300, rate => 1000, senders => 3}),
    {links, [_]} = {links, [P || {links, Links} <- [process_info(Pid, links)], P <- Links, P =:= self()]},
    ok = do_eventually(fun() -> maps:get(sent, msggen:stats(Pid)) > 0 end),
    #{senders := 3, sent := Sent} = msggen:stats(Pid),
    true = Sent =< 300,
    {ok, #{sent := 300}} = do_result(Pid),
    {noproc, _} = do_raised(fun() -> msggen:stats(Pid) end),
    ok = do_nothing_left(Before).

stop(_) ->
    doc("A run without limit goes on until it is stopped; stop/1 answers the report, and leaves no message."),
    Before = processes(),
    [begin
        {ok, Pid} = msggen:start_run(Options#{dest => do_to_self(), senders => 2}),
        receive
            {message, _, _, _, _} -> ok
        end,
        {Us, {ok, #{sent := Sent}}} = timer:tc(fun() -> msggen:stop(Pid) end),
        %% Also a sender that waits for its next message an hour hears of it.
        true = Us < 900000,
        Sent = length(do_all()) + 1,
        ok = do_nothing_left(Before)
    end || Options <- [#{rate => 1000}, #{rate => 0.001}, #{rate => 20000, batch => 5}]].

stop_by_another(_) ->
    doc("Any process can stop a run; the one that started it is told."),
    %% Its sender hangs, so that the second finds the first waiting.
    {ok, Pid} = msggen:start_run(#{dest => fun(_, _) -> timer:sleep(infinity) end}),
    ok = do_eventually(fun() -> maps:get(sent, msggen:stats(Pid)) =:= 1 end),
    Self = self(),
    [spawn_link(fun() -> Self ! {stopped, msggen:stop(Pid)} end) || _ <- [1, 2]],
    {ok, #{sent := 1}} = do_result(Pid),
    [receive
        {stopped, {ok, #{sent := 1}}} -> ok
    after 5000 ->
        error(not_stopped)
    end || _ <- [1, 2]],
    ok.

stop_before_the_start(_) ->
    doc("A run that has not begun yet can be stopped."),
    {ok, Pid} = msggen:start_run(#{dest => do_to_self(), start => erlang:system_time(microsecond) + 3600000000}),
    {Us, {ok, #{sent := 0, elapsed_us := 0}}} = timer:tc(fun() -> msggen:stop(Pid) end),
    true = Us < 900000,
    [] = do_all().

stop_when_over(_) ->
    doc("stop/1 after the end answers the result that waits in the mailbox; with none it exits."),
    {ok, Pid} = msggen:start_run(#{dest => fun(_, _) -> ok end, count => 7}),
    ok = do_eventually(fun() -> not is_process_alive(Pid) end),
    {ok, #{sent := 7}} = msggen:stop(Pid),
    noproc = do_raised(fun() -> msggen:stop(Pid) end).

stop_while_it_hangs(_) ->
    doc("A sender that does not come back is ended after a second, and its message is counted."),
    Before = processes(),
    {ok, Pid} = msggen:start_run(#{dest => fun(_, _) -> timer:sleep(infinity) end, count => 5}),
    ok = do_eventually(fun() -> maps:get(sent, msggen:stats(Pid)) =:= 1 end),
    {Us, {ok, #{sent := 1}}} = timer:tc(fun() -> msggen:stop(Pid) end),
    true = Us >= 900000,
    ok = do_nothing_left(Before).

owner_ends(_) ->
    doc("When the process that started a run ends, in whatever way, nothing goes on."),
    Before = processes(),
    [begin
        Self = self(),
        Owner = spawn(fun() ->
            case How of
                run -> msggen:run(#{dest => do_to(Self), rate => 1000, duration => 60000, senders => 3});
                _ -> {ok, _} = msggen:start_run(#{dest => do_to(Self), rate => 1000, senders => 3})
            end,
            receive
                {leave, Reason} -> exit(Reason)
            end
        end),
        receive
            {message, _, _, _, _} -> ok
        end,
        case How of
            {leave, _} -> Owner ! How;
            _ -> exit(Owner, kill)
        end,
        ok = do_eventually(fun() -> processes() -- Before =:= [] end),
        _ = do_all()
    end || How <- [{leave, normal}, {leave, shutdown}, kill, run]].

run_is_killed(_) ->
    doc("When the run itself is killed, so are its senders, and run/1 does not hang."),
    Before = processes(),
    false = process_flag(trap_exit, true),
    {ok, Pid} = msggen:start_run(#{dest => fun(_, _) -> ok end, rate => 1000, senders => 3}),
    exit(Pid, kill),
    receive
        {'EXIT', Pid, killed} -> ok
    end,
    ok = do_nothing_left(Before),
    Suicide = fun(_, Body) ->
        {links, [Run]} = process_info(self(), links),
        do_seq(Body) =:= 20 andalso exit(Run, kill)
    end,
    killed = do_raised(fun() ->
        msggen:run(#{dest => Suicide, duration => 60000, rate => 100, uids => {1, 1}})
    end),
    true = process_flag(trap_exit, false),
    ok = do_nothing_left(Before).

caller_traps_exits(_) ->
    doc("A caller that traps exits finds no message of a run after run/1."),
    false = process_flag(trap_exit, true),
    [{ok, _} = msggen:run(#{dest => fun(_, _) -> ok end, count => 10, senders => 3}) || _ <- lists:seq(1, 50)],
    true = process_flag(trap_exit, false),
    {messages, []} = process_info(self(), messages).

odd_messages(_) ->
    doc("What a run does not know is logged, and it goes on."),
    {ok, Pid} = msggen:start_run(#{dest => fun(_, _) -> ok end, count => 100, rate => 500}),
    Pid ! odd,
    ok = gen_server:cast(Pid, odd),
    {error, {bad_request, odd}} = gen_server:call(Pid, odd),
    {ok, #{sent := 100}} = do_result(Pid).

%% Options.

limits(_) ->
    doc("Every option's limits are allowed."),
    Max = 16#7FFFFFFFFFFFFFFF,
    [{ok, _} = msggen:run(maps:merge(#{dest => fun(_, _) -> ok end, count => 0}, Options)) || Options <- [
        #{dest => halley}, #{dest => router}, #{dest => {httpd, node()}},
        #{senders => 1}, #{senders => 100000, uids => {1, 3}},
        #{rate => 0.001}, #{rate => 1}, #{rate => infinity},
        #{count => infinity, duration => 0}, #{duration => infinity},
        #{size => 0}, #{size => 1048576}, #{size => {0, 0}}, #{size => {1048576, 1048576}},
        #{uids => {1, 1}}, #{uids => {Max, Max}}, #{uids => {2, 16777217}},
        #{distribution => {zipf, 0.0001}}, #{distribution => {zipf, 20}}, #{distribution => zipf},
        #{distribution => round_robin}, #{distribution => uniform},
        #{batch => 1}, #{batch => 1000},
        #{start => 0}, #{start => -1},
        #{seq => 1}, #{seq => 100000000000000000},
        #{stamp => now}, #{stamp => due, rate => 1},
        #{progress => none}, #{progress => fun(_) -> ok end}, #{every => 1}, #{every => 4294967295}
    ]],
    ok = do_largest_number().

%% Beyond the limit of `seq' there are digits left for more than can be sent.
do_largest_number() ->
    {ok, _} = msggen:run(#{dest => do_to_self(), count => 2, uids => {1, 1}, seq => 100000000000000000}),
    [<<"100000000000000000 ", _/binary>>, <<"100000000000000001 ", _/binary>>] = [Body || {_, Body, _} <- do_all()],
    ok.

bad_options(_) ->
    doc("What cannot be is refused before the first message, with the key, the value and what is allowed."),
    Before = processes(),
    Max = 16#7FFFFFFFFFFFFFFF,
    [begin
        {bad_option, Key, Value, Expected} =
            do_raised(fun() -> msggen:run(maps:merge(#{dest => do_to_self(), count => 1}, #{Key => Value})) end),
        true = io_lib:printable_list(Expected),
        {bad_option, Key, Value, Expected} =
            do_raised(fun() -> msggen:start_run(#{Key => Value}) end)
    end || {Key, Values} <- [
        {dest, [nowhere, {httpd, "host"}, {"httpd", 'halley@host'}, fun(_) -> ok end, {a, b, c}]},
        {senders, [0, 100001, 1.0, infinity]},
        {rate, [0, 0.0, -1, fast]},
        {count, [-1, 1.0, many]},
        {duration, [-1, 1.0, undefined]},
        {size, [-1, 1048577, 1.0, {-1, 5}, {5, 4}, {0, 1048577}, {1, 2, 3}]},
        {uids, [{0, 1}, {2, 1}, {1, Max + 1}, {1, 16777217}, 5, {1, many}, [1]]},
        {distribution, [zip, {zipf, 0}, {zipf, 0.0}, {zipf, -1}, {zipf, 20.1}, {zipf, x}]},
        {batch, [0, 1001, 1.0]},
        {start, [now, 1.0, undefined]},
        {seq, [0, 100000000000000001, 1.0]},
        {stamp, [then, 1]},
        {progress, [fun() -> ok end, yes]},
        {every, [0, 4294967296, 1.0]},
        {sender, [1]},
        {"dest", [halley]}
    ], Value <- Values],
    {bad_option, stamp, due, _} = do_raised(fun() -> msggen:run(#{stamp => due, count => 1}) end),
    {bad_option, count, infinity, _} = do_raised(fun() -> msggen:run(#{dest => do_to_self()}) end),
    {bad_option, progress, _, _} = do_raised(fun() -> msggen:start_run(#{progress => fun(_) -> ok end}) end),
    {bad_options, [], _} = do_raised(fun() -> msggen:run([]) end),
    [] = do_all(),
    ok = do_nothing_left(Before).

%% Helpers.

do_to_self() ->
    do_to(self()).

do_to(Pid) ->
    fun(Uid, Body) -> Pid ! {message, Uid, Body, self(), os:system_time(microsecond)} end.

do_all() ->
    [{Uid, Body, Sender} || {Uid, Body, Sender, _} <- do_all_times()].

do_all_times() ->
    receive
        {message, Uid, Body, Sender, At} -> [{Uid, Body, Sender, At} | do_all_times()]
    after 0 ->
        []
    end.

do_pairs() ->
    receive
        {Uid, Body} when is_integer(Uid), is_binary(Body) -> [{Uid, Body} | do_pairs()]
    after 0 ->
        []
    end.

do_lists() ->
    receive
        List when is_list(List) -> [List | do_lists()]
    after 0 ->
        []
    end.

do_routed() ->
    receive
        {router_msg, Body} -> [Body | do_routed()]
    after 0 ->
        []
    end.

%% What Fun raises.
do_raised(Fun) ->
    try Fun() of
        Result -> {returned, Result}
    catch
        _:Reason -> Reason
    end.

%% {Stamp, Arrived} of each.
do_stamps(Got) ->
    [{do_stamp(Body), At} || {_, Body, _, At} <- Got].

do_stamp(Body) ->
    [_, Micros | _] = binary:split(Body, <<" ">>, [global]),
    binary_to_integer(Micros).

do_seq(Body) ->
    [Seq | _] = binary:split(Body, <<" ">>),
    binary_to_integer(Seq).

%% The numbers of each uid, as they came.
do_seqs(Options) ->
    {ok, _} = msggen:run(Options#{dest => do_to_self()}),
    maps:map(fun(_, Bodies) -> [do_seq(Body) || Body <- Bodies] end,
        do_by_uid([{Uid, Body} || {Uid, Body, _} <- do_all()])).

do_by_uid(Pairs) ->
    lists:foldr(fun({Uid, Body}, Map) ->
        maps:update_with(Uid, fun(Bodies) -> [Body | Bodies] end, [Body], Map)
    end, #{}, Pairs).

do_in_order(ByUid) ->
    do_in_order_seqs(maps:map(fun(_, Bodies) -> [do_seq(Body) || Body <- Bodies] end, ByUid)).

do_in_order_seqs(Seqs) ->
    [] = [{Uid, S} || {Uid, S} <- maps:to_list(Seqs), S =/= lists:seq(1, length(S))],
    ok.

do_count(Keys) ->
    lists:sort(maps:to_list(lists:foldl(fun(Key, Map) ->
        maps:update_with(Key, fun(N) -> N + 1 end, 1, Map)
    end, #{}, Keys))).

do_get_reports() ->
    case get(reports) of
        undefined -> [];
        Reports -> Reports
    end.

do_result(Pid) ->
    receive
        {msggen, Pid, Result} -> Result
    after 15000 ->
        error(no_result)
    end.

%% Nothing more has been sent for a while.
do_stuck(Pid) ->
    #{sent := Sent} = msggen:stats(Pid),
    timer:sleep(200),
    Sent > 0 andalso maps:get(sent, msggen:stats(Pid)) =:= Sent.

%% No process, and no message: neither is waited for where run/1 or stop/1 has
%% answered, but for what other programs on this node start meanwhile.
do_nothing_left(Before) ->
    ok = do_eventually(fun() ->
        case [P || P <- processes() -- Before, do_is_ours(P)] of
            [] -> true;
            Left -> [{P, erlang:process_info(P)} || P <- Left]
        end
    end),
    {messages, []} = process_info(self(), messages),
    ok.

do_is_ours(Pid) ->
    case process_info(Pid, [initial_call, current_stacktrace, dictionary]) of
        undefined -> false;
        Info -> string:find(io_lib:format("~p", [Info]), "msggen_") =/= nomatch
    end.
