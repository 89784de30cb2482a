%% The articles' router, on two real nodes: it runs on the first.
-module(router_SUITE).

-export([all/0]).
-export([init_per_suite/1]).
-export([end_per_suite/1]).
-export([init_per_testcase/2]).
-export([end_per_testcase/2]).

-export([login_send/1]).
-export([send_to_nobody/1]).
-export([send_from_other_node/1]).
-export([order/1]).
-export([many_pids_per_id/1]).
-export([many_ids_per_pid/1]).
-export([login_twice/1]).
-export([logout/1]).
-export([logout_of_stranger/1]).
-export([local_pid_ends/1]).
-export([dead_pid_logs_in/1]).
-export([remote_pid_ends/1]).
-export([remote_node_is_killed/1]).
-export([odd_messages/1]).
-export([second_router/1]).
-export([restart/1]).

-import(halley_test, [doc/1, do_on/2, do_on/3, do_eventually/1]).

all() ->
    [Name || {Name, 1} <- ?MODULE:module_info(exports),
        not lists:member(Name, [module_info, init_per_suite, end_per_suite])].

init_per_suite(Config) ->
    halley_test:do_start_epmd(Config).

end_per_suite(Config) ->
    halley_test:do_stop_epmd(Config).

init_per_testcase(_, Config) ->
    A = halley_test:do_start_node(Config, halley_test:do_name("a"), []),
    B = {_, NodeB} = halley_test:do_start_node(Config, halley_test:do_name("b"), []),
    ok = halley_test:do_start_app(A, [{router, true}]),
    ok = do_on(A, fun() ->
        pong = net_adm:ping(NodeB),
        global:sync()
    end),
    ok = do_eventually(fun() -> is_pid(do_on(B, fun() -> global:whereis_name(router) end)) end),
    [{a, A}, {b, B} | Config].

end_per_testcase(_, Config) ->
    halley_test:do_stop_node(proplists:get_value(a, Config)),
    halley_test:do_stop_node(proplists:get_value(b, Config)).

%% Cases.

login_send(Config) ->
    doc("A pid that is logged in as an id receives what is sent to it, as {router_msg, Msg}."),
    do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(123, Pid),
        ok = router:send(123, <<"hello">>),
        ok = router:send(124, <<"not for 123">>),
        [<<"hello">>] = do_got(Pid)
    end).

send_to_nobody(Config) ->
    doc("A message to an id that nobody is logged in as is gone, and that is ok."),
    ok = do_on(do_a(Config), fun() -> router:send(7, hello) end),
    {0, 0} = do_sizes(Config).

send_from_other_node(Config) ->
    doc("Any node of the cluster can log in and send."),
    Pid = do_on(do_b(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(bob, Pid),
        ok = router:send(bob, 1),
        Pid
    end),
    ok = do_on(do_a(Config), fun() -> router:send(bob, 2) end),
    [1, 2] = do_on(do_b(Config), fun do_got/1, [Pid]).

order(Config) ->
    doc("What one process sends to one id arrives in the order it was sent."),
    do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(1, Pid),
        Sent = lists:seq(1, 1000),
        [ok = router:send(1, N) || N <- Sent],
        Sent = do_got(Pid)
    end).

many_pids_per_id(Config) ->
    doc("A message to an id reaches every pid that is logged in as it, on any node."),
    Remote = do_on(do_b(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(1, Pid),
        Pid
    end),
    do_on(do_a(Config), fun() ->
        Pids = [do_browser() || _ <- lists:seq(1, 10)],
        [ok = router:login(1, Pid) || Pid <- Pids],
        ok = router:send(1, hello),
        [[hello] = do_got(Pid) || Pid <- Pids]
    end),
    [hello] = do_on(do_b(Config), fun do_got/1, [Remote]).

many_ids_per_pid(Config) ->
    doc("A pid can be logged in as many ids; one logout ends them all."),
    do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        Other = do_browser(),
        [ok = router:login(Id, Pid) || Id <- [1, 2, three]],
        ok = router:login(1, Other),
        [ok = router:send(Id, Id) || Id <- [1, 2, three]],
        [1, 2, three] = do_got(Pid),
        ok = router:logout(Pid),
        [ok = router:send(Id, Id) || Id <- [1, 2, three]],
        [] = do_got(Pid),
        [1, 1] = do_got(Other)
    end),
    {1, 1} = do_sizes(Config).

login_twice(Config) ->
    doc("A pid that logs in twice as the same id gets each message once."),
    do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(1, Pid),
        ok = router:login(1, Pid),
        ok = router:send(1, hello),
        [hello] = do_got(Pid)
    end).

logout(Config) ->
    doc("After logout a pid gets nothing, and its end concerns the router no more."),
    do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(1, Pid),
        ok = router:logout(Pid),
        ok = router:send(1, hello),
        [] = do_got(Pid),
        {links, []} = process_info(Pid, links)
    end),
    {0, 0} = do_sizes(Config).

logout_of_stranger(Config) ->
    doc("A logout of a pid that is not logged in is ok, and does not cut the supervisor's link."),
    do_on(do_a(Config), fun() ->
        ok = router:logout(do_browser()),
        Sup = whereis(halley_sup),
        ok = router:logout(Sup),
        {links, Links} = process_info(global:whereis_name(router), links),
        true = lists:member(Sup, Links)
    end).

local_pid_ends(Config) ->
    doc("A pid that ends, in whatever way, is logged out; the others stay."),
    do_on(do_a(Config), fun() ->
        Stays = do_browser(),
        ok = router:login(1, Stays),
        [begin
            Pid = do_browser(),
            ok = router:login(1, Pid),
            ok = router:login(2, Pid),
            exit(Pid, Reason)
        end || Reason <- [kill, crash, shutdown]]
    end),
    do_eventually(fun() -> do_sizes(Config) =:= {1, 1} end).

dead_pid_logs_in(Config) ->
    doc("A pid that is dead before it logs in leaves nothing behind."),
    Dead = do_on(do_b(Config), fun() -> spawn(fun() -> ok end) end),
    do_on(do_a(Config), fun() ->
        Pid = spawn(fun() -> ok end),
        do_eventually(fun() -> not is_process_alive(Pid) end),
        ok = router:login(1, Pid),
        ok = router:login(1, Dead)
    end),
    do_eventually(fun() -> do_sizes(Config) =:= {0, 0} end).

remote_pid_ends(Config) ->
    doc("A pid on another node that ends is logged out."),
    Pid = do_on(do_b(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(1, Pid),
        Pid
    end),
    {1, 1} = do_sizes(Config),
    true = do_on(do_b(Config), fun() -> exit(Pid, kill) end),
    do_eventually(fun() -> do_sizes(Config) =:= {0, 0} end).

remote_node_is_killed(Config) ->
    doc("When a node is killed its pids are logged out; the others still get their messages."),
    ok = do_on(do_b(Config), fun() ->
        [ok = router:login(N rem 10, do_browser()) || N <- lists:seq(1, 100)],
        ok
    end),
    Pid = do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(1, Pid),
        Pid
    end),
    {101, 101} = do_sizes(Config),
    halley_test:do_kill_node(do_b(Config)),
    do_eventually(fun() -> do_sizes(Config) =:= {1, 1} end),
    do_on(do_a(Config), fun() ->
        ok = router:send(1, still_here),
        [still_here] = do_got(Pid)
    end).

odd_messages(Config) ->
    doc("What the router does not understand is logged and does it no harm."),
    do_on(do_a(Config), fun() ->
        Router = global:whereis_name(router),
        Pid = do_browser(),
        ok = router:login(1, Pid),
        {error, {bad_request, odd}} = gen_server:call(Router, odd),
        {error, {bad_request, {login, 1, not_a_pid}}} = gen_server:call(Router, {login, 1, not_a_pid}),
        ok = gen_server:cast(Router, odd),
        Router ! odd,
        Router ! {'EXIT', not_a_pid, odd},
        Router ! {'EXIT', spawn(fun() -> ok end), never_logged_in},
        ok = router:send(1, hello),
        [hello] = do_got(Pid),
        Router = global:whereis_name(router)
    end).

second_router(Config) ->
    doc("The cluster has one router: a second one is refused, with the pid of the first."),
    Router = do_on(do_a(Config), fun() -> global:whereis_name(router) end),
    {error, {already_started, Router}} = do_on(do_b(Config), fun router:start_link/0).

restart(Config) ->
    doc("A router that crashed is started again, empty; pids that do not trap exits ended with it."),
    do_on(do_a(Config), fun() ->
        Router = global:whereis_name(router),
        Pid = do_browser(),
        ok = router:login(1, Pid),
        true = exit(Router, kill),
        do_eventually(fun() ->
            New = global:whereis_name(router),
            is_pid(New) andalso New =/= Router
        end),
        do_eventually(fun() -> not is_process_alive(Pid) end),
        Again = do_browser(),
        ok = router:login(1, Again),
        ok = router:send(1, hello),
        [hello] = do_got(Again)
    end),
    {1, 1} = do_sizes(Config).

%% Helpers.

do_a(Config) ->
    proplists:get_value(a, Config).

do_b(Config) ->
    proplists:get_value(b, Config).

%% The rows of the router's two tables.
do_sizes(Config) ->
    do_on(do_a(Config), fun() ->
        {state, Pid2Id, Id2Pid} = sys:get_state({global, router}),
        {ets:info(Pid2Id, size), ets:info(Id2Pid, size)}
    end).

%% What would serve a browser: it keeps what the router sends.
do_browser() ->
    spawn(fun() -> do_browser([]) end).

do_browser(Got) ->
    receive
        {router_msg, Msg} ->
            do_browser([Msg | Got]);
        {got, From} ->
            From ! {self(), lists:reverse(Got)},
            do_browser([])
    end.

%% router:send/2 has put the message into the mailbox before it returns, if
%% both pids are on the router's node; else ask a moment later.
do_got(Pid) ->
    _ = node(Pid) =:= node(global:whereis_name(router)) orelse timer:sleep(200),
    Pid ! {got, self()},
    receive
        {Pid, Got} -> Got
    end.
