%% What Halley tells a router: presence, its epochs, and Halley's coming and going,
%% with hidden Erlang nodes that play Halley. With Halley itself: router_halley_SUITE.
-module(router_presence_SUITE).

-export([all/0]).
-export([init_per_suite/1]).
-export([end_per_suite/1]).
-export([init_per_testcase/2]).
-export([end_per_testcase/2]).

-export([connected_and_disconnected/1]).
-export([there_before_the_router/1]).
-export([many_pages/1]).
-export([no_monitors/1]).
-export([what_is_known/1]).
-export([once_each/1]).
-export([login_before_presence/1]).
-export([logout_leaves_the_uid/1]).
-export([ends_with_its_logins/1]).
-export([next_epoch_drops_the_gone/1]).
-export([connected_since_stays/1]).
-export([older_epoch_is_ignored/1]).
-export([gaps_are_counted/1]).
-export([empty_epoch/1]).
-export([empty_epoch_of_one_of_two/1]).
-export([empty_newcomer_harms_nobody/1]).
-export([mark_of_no_halley/1]).
-export([router_restarts/1]).
-export([node_is_killed/1]).
-export([connection_is_lost/1]).
-export([two_nodes/1]).
-export([odd_presence/1]).
-export([hundred_thousand/1]).

-import(halley_test, [doc/1, do_on/2, do_on/3, do_eventually/1, do_name/1]).

all() ->
    [Name || {Name, 1} <- ?MODULE:module_info(exports),
        not lists:member(Name, [module_info, init_per_suite, end_per_suite])].

init_per_suite(Config) ->
    halley_test:do_start_epmd(Config).

end_per_suite(Config) ->
    halley_test:do_stop_epmd(Config).

init_per_testcase(_, Config0) ->
    A = halley_test:do_start_node(Config0, do_name("a"), []),
    Config = [{a, A} | Config0],
    ok = halley_test:do_start_app(A, [{router, true}]),
    [{h, do_start_fake(Config, do_name("h"))} | Config].

end_per_testcase(_, Config) ->
    [halley_test:do_stop_node(proplists:get_value(Key, Config)) || Key <- [a, h]].

%% Cases.

connected_and_disconnected(Config) ->
    doc("A connection is reached by its uid from connected to disconnected; nobody logs in."),
    Pid = do_open(Config, 1),
    do_is(Config, #{1 => [Pid]}),
    ok = do_send(Config, 1, hello),
    [{router_msg, hello}] = do_h(Config, got, [Pid]),
    Second = do_open(Config, 1),
    Other = do_open(Config, <<"bob">>),
    do_is(Config, #{1 => [Pid, Second], <<"bob">> => [Other]}),
    ok = do_h(Config, close, [Pid]),
    do_is(Config, #{1 => [Second], <<"bob">> => [Other]}),
    ok = do_h(Config, close, [Second]),
    do_is(Config, #{<<"bob">> => [Other]}).

there_before_the_router(Config) ->
    doc("Who was connected before the router started is told to it."),
    ok = do_on(do_a(Config), fun() -> supervisor:terminate_child(halley_sup, router) end),
    Pid = do_open(Config, 1),
    {ok, _} = do_on(do_a(Config), fun() -> supervisor:restart_child(halley_sup, router) end),
    do_is(Config, #{1 => [Pid]}).

many_pages(Config) ->
    doc("An epoch of many pages is taken in whole, and stats/0 says so."),
    Pids = [{N rem 7, do_open(Config, N rem 7)} || N <- lists:seq(1, 50)],
    ok = do_again(Config),
    do_is(Config, do_grouped(Pids)),
    Node = do_node(Config),
    Epoch = do_h(Config, epoch, []),
    #{online := 7, pids := 50, halleys := #{Node := #{epoch := Epoch, whole := true, missed := 0}}} = do_stats(Config).

no_monitors(Config) ->
    doc("A pid that Halley tells of has no monitor, whether it logs in before or after."),
    Monitors = fun() -> do_on(do_a(Config), fun() -> process_info(whereis(router), monitors) end) end,
    Pid = do_open(Config, 1),
    Untold = do_h(Config, open, [2, untold]),
    do_is(Config, #{1 => [Pid]}),
    ok = do_login(Config, 1, Pid, #{}),
    {monitors, []} = Monitors(),
    ok = do_login(Config, 2, Untold, #{}),
    {monitors, [{process, Untold}]} = Monitors(),
    ok = do_again(Config),
    do_eventually(fun() -> Monitors() =:= {monitors, []} end),
    do_is(Config, #{1 => [Pid], 2 => [Untold]}).

what_is_known(Config) ->
    doc("info/1 shows what Halley told, under the uid, and over it what the pid logged in with."),
    Pid = do_open(Config, 1),
    do_is(Config, #{1 => [Pid]}),
    Info = fun(Id) -> do_on(do_a(Config), fun router:info/1, [Id]) end,
    [{Pid, #{transport := chunked} = Told}] = Info(1),
    1 = map_size(Told),
    ok = do_login(Config, 1, Pid, #{device => phone}),
    [{Pid, #{transport := chunked, device := phone}}] = Info(1),
    ok = do_login(Config, alias, Pid, #{device => alias}),
    [{Pid, #{device := alias} = Alias}] = Info(alias),
    1 = map_size(Alias),
    %% A later epoch does not tell the transport: it is still known.
    ok = do_again(Config),
    [{Pid, #{transport := chunked, device := phone}}] = Info(1).

once_each(Config) ->
    doc("A pid that logs in and that Halley tells of, in whatever order and epoch, gets each message once per id."),
    Pid = do_open(Config, 1),
    do_is(Config, #{1 => [Pid]}),
    ok = do_login(Config, 1, Pid, #{}),
    ok = do_login(Config, 1, Pid, #{}),
    ok = do_login(Config, other, Pid, #{}),
    ok = do_again(Config),
    do_is(Config, #{1 => [Pid], other => [Pid]}),
    ok = do_send(Config, 1, one),
    ok = do_send(Config, other, two),
    [{router_msg, one}, {router_msg, two}] = do_h(Config, got, [Pid]).

login_before_presence(Config) ->
    doc("A login that comes before Halley's word is kept, and ends with the connection."),
    Pid = do_h(Config, open, [1, untold]),
    ok = do_login(Config, 1, Pid, #{device => phone}),
    ok = do_again(Config),
    do_is(Config, #{1 => [Pid]}),
    [{Pid, #{device := phone}}] = do_on(do_a(Config), fun router:info/1, [1]),
    ok = do_h(Config, close, [Pid]),
    do_is(Config, #{}).

logout_leaves_the_uid(Config) ->
    doc("A logout ends what the pid logged in as; its uid is its own as long as it is connected."),
    Pid = do_open(Config, 1),
    do_is(Config, #{1 => [Pid]}),
    ok = do_login(Config, 1, Pid, #{device => phone}),
    ok = do_login(Config, other, Pid, #{}),
    ok = do_on(do_a(Config), fun router:logout/1, [Pid]),
    do_is(Config, #{1 => [Pid]}),
    [{Pid, #{transport := chunked} = Told}] = do_on(do_a(Config), fun router:info/1, [1]),
    1 = map_size(Told).

ends_with_its_logins(Config) ->
    doc("disconnected ends all logins of the pid, known by presence or not."),
    Pid = do_open(Config, 1),
    do_is(Config, #{1 => [Pid]}),
    ok = do_login(Config, other, Pid, #{}),
    ok = do_h(Config, close, [Pid]),
    do_is(Config, #{}),
    Untold = do_h(Config, open, [1, untold]),
    ok = do_login(Config, other, Untold, #{}),
    ok = do_h(Config, close, [Untold]),
    do_is(Config, #{}).

next_epoch_drops_the_gone(Config) ->
    doc("What ended while Halley could not tell is dropped at the next epoch's end, with its logins; not before."),
    [One, Two, Three] = [do_open(Config, Uid) || Uid <- [1, 2, 3]],
    do_is(Config, #{1 => [One], 2 => [Two], 3 => [Three]}),
    ok = do_login(Config, other, One, #{}),
    ok = do_h(Config, cut, []),
    [ok = do_h(Config, close, [Pid]) || Pid <- [One, Two]],
    Four = do_open(Config, 4),
    do_is(Config, #{1 => [One], 2 => [Two], 3 => [Three], other => [One]}),
    ok = do_h(Config, resume, []),
    do_is(Config, #{3 => [Three], 4 => [Four]}).

connected_since_stays(Config) ->
    doc("A connection that is told of by connected, between the batches, is not dropped at the end."),
    [One, Two] = [do_open(Config, Uid) || Uid <- [1, 2]],
    Epoch = do_h(Config, epoch, []) + 1,
    Since = do_h(Config, open, [3, untold]),
    [ok = do_h(Config, tell, [Message]) || Message <- [
        {all_present, Epoch, [{1, One}]},
        {connected, 3, Since, #{epoch => Epoch, version => 1}},
        {all_present, Epoch, do_node(Config)}
    ]],
    do_is(Config, #{1 => [One], 3 => [Since]}),
    true = is_pid(Two).

older_epoch_is_ignored(Config) ->
    doc("What is left of an older epoch adds nobody and drops nobody."),
    Pid = do_open(Config, 1),
    Untold = do_h(Config, open, [2, untold]),
    Epoch = do_h(Config, epoch, []),
    [ok = do_h(Config, tell, [Message]) || Message <- [
        {all_present, Epoch - 1, [{2, Untold}]},
        {connected, 2, Untold, #{epoch => Epoch - 1, version => 7}},
        {all_present, Epoch - 1, do_node(Config)}
    ]],
    ok = do_sync(Config),
    do_is(Config, #{1 => [Pid]}),
    Node = do_node(Config),
    #{halleys := #{Node := #{epoch := Epoch, missed := 0}}} = do_stats(Config).

gaps_are_counted(Config) ->
    doc("The versions tell how many comings and goings did not reach the router."),
    Node = do_node(Config),
    Missed = fun() ->
        ok = do_sync(Config),
        #{halleys := #{Node := #{missed := Missed}}} = do_stats(Config),
        Missed
    end,
    [One, _] = [do_open(Config, Uid) || Uid <- [1, 2]],
    ok = do_again(Config),
    0 = Missed(),
    ok = do_h(Config, close, [One]),
    _ = do_open(Config, 3),
    0 = Missed(),
    _ = do_h(Config, open, [4, untold]),
    Five = do_h(Config, open, [5, untold]),
    0 = Missed(),
    _ = do_open(Config, 6),
    2 = Missed(),
    ok = do_h(Config, close_untold, [Five]),
    _ = do_open(Config, 7),
    3 = Missed(),
    %% An epoch counts from 1, the missed of all epochs are counted together.
    ok = do_again(Config),
    _ = do_open(Config, 8),
    3 = Missed(),
    [4, 6, 8] = [Uid || Uid <- [1, 4, 5, 6, 8], do_on(do_a(Config), fun router:online/1, [Uid])].

empty_epoch(Config) ->
    doc("An epoch without a single connection drops all that the node had before."),
    Pid = do_open(Config, 1),
    do_is(Config, #{1 => [Pid]}),
    ok = do_h(Config, cut, []),
    ok = do_h(Config, close, [Pid]),
    ok = do_h(Config, resume, []),
    do_is(Config, #{}),
    do_is_whole(Config, do_fake(Config)),
    %% What comes next of that epoch is counted as of any other.
    New = do_open(Config, 2),
    do_is(Config, #{2 => [New]}),
    do_is_whole(Config, do_fake(Config)).

empty_epoch_of_one_of_two(Config) ->
    doc("Of two Halleys one is empty after a cut: at its mark its stale pids are dropped, the other's stay."),
    Other = do_start_fake(Config, do_name("other")),
    Theirs = do_on(Other, fun router_fake:open/1, [1]),
    Pids = [do_open(Config, Uid) || Uid <- [1, 2, 3, 4]],
    [One, Two, Three, Four] = Pids,
    do_is(Config, #{1 => [Theirs, One], 2 => [Two], 3 => [Three], 4 => [Four]}),
    ok = do_login(Config, other, Two, #{}),
    ok = do_h(Config, cut, []),
    [ok = do_h(Config, close, [Pid]) || Pid <- Pids],
    %% The other's mark is not the empty one's.
    ok = do_on(Other, fun router_fake:resume/0),
    do_is_whole(Config, Other),
    do_is(Config, #{1 => [Theirs, One], 2 => [Two], 3 => [Three], 4 => [Four], other => [Two]}),
    ok = do_again(Config),
    do_is(Config, #{1 => [Theirs]}),
    do_is_whole(Config, Other),
    do_is_whole(Config, do_fake(Config)),
    halley_test:do_stop_node(Other).

empty_newcomer_harms_nobody(Config) ->
    doc("A Halley that comes without a connection drops nobody, and is forgotten when it goes, also if at once."),
    Pid = do_open(Config, 1),
    do_is(Config, #{1 => [Pid]}),
    ok = do_on(do_a(Config), fun() -> sys:suspend(router) end),
    Other = do_start_fake(Config, do_name("other")),
    halley_test:do_kill_node(Other),
    do_eventually(fun() -> do_on(do_a(Config), fun() -> length(nodes(hidden)) end) =:= 1 end),
    ok = do_on(do_a(Config), fun() -> sys:resume(router) end),
    do_is(Config, #{1 => [Pid]}),
    Node = do_node(Config),
    do_eventually(fun() -> maps:keys(maps:get(halleys, do_stats(Config))) =:= [Node] end).

mark_of_no_halley(Config) ->
    doc("A mark of a node that is no Halley, the router's own even, drops nobody."),
    {_, A} = do_a(Config),
    Pid = do_open(Config, 1),
    Untold = do_h(Config, open, [2, untold]),
    Local = do_on(do_a(Config), fun() -> spawn(fun() -> timer:sleep(infinity) end) end),
    [ok = do_login(Config, 2, Login, #{}) || Login <- [Untold, Local]],
    Epoch = do_h(Config, epoch, []) + 1000000,
    [ok = do_h(Config, tell, [{all_present, Epoch, Node}]) || Node <- [A, 'nobody@localhost']],
    ok = do_sync(Config),
    do_is(Config, #{1 => [Pid], 2 => [Untold, Local]}),
    ok = do_again(Config),
    do_is(Config, #{1 => [Pid], 2 => [Untold, Local]}).

router_restarts(Config) ->
    doc("A router that crashed is made whole by Halley, which sees it come back; those who logged in are not."),
    Pids = [{N, do_open(Config, N)} || N <- lists:seq(1, 20)],
    [{_, First} | _] = Pids,
    ok = do_login(Config, other, First, #{}),
    do_is(Config, (do_grouped(Pids))#{other => [First]}),
    [begin
        true = do_on(do_a(Config), fun() -> exit(whereis(router), kill) end),
        do_is(Config, do_grouped(Pids))
    end || _ <- [1, 2, 3]],
    ok = do_send(Config, 1, hello),
    [{router_msg, hello}] = do_h(Config, got, [First]).

node_is_killed(Config) ->
    doc("When Halley is killed its pids go, logged in or told of; others stay; the next Halley's are told anew."),
    A = do_a(Config),
    {_, Node} = do_fake(Config),
    Told = do_open(Config, 1),
    Untold = do_h(Config, open, [2, untold]),
    ok = do_login(Config, 2, Untold, #{}),
    Local = do_on(A, fun() -> spawn(fun() -> timer:sleep(infinity) end) end),
    ok = do_login(Config, 1, Local, #{}),
    do_is(Config, #{1 => [Told, Local], 2 => [Untold]}),
    halley_test:do_kill_node(do_fake(Config)),
    do_is(Config, #{1 => [Local]}),
    do_eventually(fun() -> maps:size(maps:get(halleys, do_stats(Config))) =:= 0 end),
    [Name, _] = string:split(atom_to_list(Node), "@"),
    Again = do_start_fake(Config, Name),
    New = do_on(Again, fun router_fake:open/1, [1]),
    do_is(Config, #{1 => [Local, New]}),
    halley_test:do_stop_node(Again),
    do_is(Config, #{1 => [Local]}).

connection_is_lost(Config) ->
    doc("When only the connection is lost, the same pids are told anew after it is back."),
    Pids = [{N, do_open(Config, N)} || N <- lists:seq(1, 10)],
    do_is(Config, do_grouped(Pids)),
    Node = do_node(Config),
    [begin
        true = do_on(do_a(Config), fun() -> erlang:disconnect_node(Node) end),
        %% The fake dials by itself, as Halley does.
        do_is(Config, do_grouped(Pids))
    end || _ <- [1, 2, 3]].

two_nodes(Config) ->
    doc("Two Halleys, the same uid on both; an epoch, and the end, of one leave the other's pids alone."),
    Other = do_start_fake(Config, do_name("other")),
    Theirs = do_on(Other, fun router_fake:open/1, [1]),
    do_is(Config, #{1 => [Theirs]}),
    Ours = do_open(Config, 1),
    Gone = do_open(Config, 2),
    do_is(Config, #{1 => [Theirs, Ours], 2 => [Gone]}),
    ok = do_h(Config, cut, []),
    ok = do_h(Config, close, [Gone]),
    ok = do_h(Config, resume, []),
    do_is(Config, #{1 => [Theirs, Ours]}),
    ok = do_send(Config, 1, hello),
    [{router_msg, hello}] = do_h(Config, got, [Ours]),
    [{router_msg, hello}] = do_on(Other, fun router_fake:got/1, [Theirs]),
    halley_test:do_kill_node(Other),
    do_is(Config, #{1 => [Ours]}).

odd_presence(Config) ->
    doc("What is no presence message, or only almost, is logged and does no harm."),
    Pid = do_open(Config, 1),
    Local = do_on(do_a(Config), fun() -> spawn(fun() -> timer:sleep(infinity) end) end),
    Router = do_on(do_a(Config), fun() -> whereis(router) end),
    Epoch = do_h(Config, epoch, []),
    Ref = do_on(do_fake(Config), fun erlang:make_ref/0),
    [ok = do_h(Config, tell, [Message]) || Message <- [
        {connected, 2, not_a_pid, #{epoch => Epoch, version => 2}},
        {connected, 2, Pid, #{}},
        {connected, 2, Pid, #{epoch => x, version => 1}},
        {connected, 2, Pid, #{epoch => Epoch, version => 0}},
        {connected, 2, Pid, []},
        {disconnected, 1, not_a_pid, normal},
        {all_present, x, do_node(Config)},
        {all_present, Epoch + 1, []},
        {all_present, Epoch + 1, <<"node">>},
        {all_present, Epoch, [odd]},
        {all_present, Epoch, [{2, not_a_pid}]},
        %% One bad element costs that element only.
        {all_present, Epoch, [{1, Pid}, odd, {3, not_a_pid}, {4, Local}, {5, Ref}, {1, Pid}]},
        {all_present, Epoch, [{1, Pid} | improper]},
        {all_present, Epoch}
    ]],
    ok = do_sync(Config),
    do_is(Config, #{1 => [Pid]}),
    Router = do_on(do_a(Config), fun() -> whereis(router) end).

hundred_thousand(Config) ->
    doc("A hundred thousand connections are told of in batches of 1000, told anew when half of them are gone, and lost."),
    {All, Half, Down} = do_on(do_a(Config), fun() ->
        Node = 'many@localhost',
        Router = whereis(router),
        Pairs = [{N, do_pid(Node, N)} || N <- lists:seq(1, 100000)],
        {All, _} = timer:tc(fun() -> do_tell_all(Router, Node, 1, Pairs) end),
        100000 = router:online(),
        {Half, _} = timer:tc(fun() -> do_tell_all(Router, Node, 2, lists:nthtail(50000, Pairs)) end),
        50000 = router:online(),
        false = router:online(50000),
        true = router:online(50001),
        {Down, _} = timer:tc(fun() ->
            Router ! {nodedown, Node, [{node_type, hidden}]},
            router:stats()
        end),
        0 = router:online(),
        {All, Half, Down}
    end),
    ct:comment("100,000 told ~b ms, half of them anew ~b ms, nodedown ~b ms", [Us div 1000 || Us <- [All, Half, Down]]).

do_tell_all(Router, Node, Epoch, []) ->
    Router ! {all_present, Epoch, Node},
    router:stats();
do_tell_all(Router, Node, Epoch, Pairs) ->
    {Now, Later} = lists:split(1000, Pairs),
    Router ! {all_present, Epoch, Now},
    do_tell_all(Router, Node, Epoch, Later).

%% Helpers.

do_a(Config) ->
    proplists:get_value(a, Config).

do_fake(Config) ->
    proplists:get_value(h, Config).

do_node(Config) ->
    element(2, do_fake(Config)).

%% A pid of another node, which need not be there.
do_pid(Node, N) ->
    Name = atom_to_binary(Node),
    binary_to_term(<<131, 88, 119, (byte_size(Name)), Name/binary, N:32, 1:32, 1:32>>).

do_start_fake(Config, Name) ->
    A = {_, NodeA} = do_a(Config),
    Fake = {_, Node} = halley_test:do_start_node(Config, Name, ["-hidden"]),
    ok = do_on(Fake, fun() ->
        true = net_kernel:connect_node(NodeA),
        router_fake:start({router, NodeA})
    end),
    do_eventually(fun() -> lists:member(Node, do_on(A, fun() -> nodes(hidden) end)) end),
    Fake.

do_h(Config, Function, Args) ->
    do_on(do_fake(Config), fun() -> apply(router_fake, Function, Args) end).

do_open(Config, Uid) ->
    do_h(Config, open, [Uid]).

%% A new epoch, taken in.
do_again(Config) ->
    ok = do_h(Config, resume, []),
    do_sync(Config).

%% The router has come to what was told before.
do_sync(Config) ->
    NodeA = element(2, do_a(Config)),
    do_on(do_fake(Config), fun() ->
        %% By the fake's own process, behind its messages.
        ok = router_fake:tell({'$gen_call', {self(), synced}, stats}),
        receive
            {synced, _} -> ok
        after 10000 ->
            error({no_answer, NodeA})
        end
    end).

do_send(Config, Id, Msg) ->
    do_on(do_a(Config), fun router:send/2, [Id, Msg]).

do_login(Config, Id, Pid, Meta) ->
    do_on(do_a(Config), fun router:login/3, [Id, Pid, Meta]).

do_stats(Config) ->
    do_on(do_a(Config), fun router:stats/0).

%% Soon the router has taken in the fake's latest epoch, to its end, and missed nothing.
do_is_whole(Config, Fake = {_, Node}) ->
    Epoch = do_on(Fake, fun router_fake:epoch/0),
    do_eventually(fun() ->
        case do_stats(Config) of
            #{halleys := #{Node := #{epoch := Epoch, whole := true, missed := 0}}} -> true;
            Stats -> Stats
        end
    end).

do_grouped(Pairs) ->
    lists:foldl(fun({Id, Pid}, Acc) ->
        maps:update_with(Id, fun(Pids) -> Pids ++ [Pid] end, [Pid], Acc)
    end, #{}, Pairs).

%% Soon the router knows exactly these: no other ids, no other pids.
do_is(Config, Want) ->
    do_eventually(fun() -> do_on(do_a(Config), fun() -> do_is(Want) end) end).

do_is(Want) ->
    Sorted = fun(Map) -> maps:map(fun(_, Pids) -> lists:sort(Pids) end, Map) end,
    try {do_grouped(ets:tab2list(router_ids)), router:online()} of
        {Is, Online} -> Sorted(Is) =:= Sorted(Want) andalso Online =:= map_size(Want) orelse {Is, Online}
    catch
        error:badarg -> no_router;
        exit:{noproc, _} -> no_router
    end.
