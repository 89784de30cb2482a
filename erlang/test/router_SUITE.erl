%% The router, on two real nodes: it runs on the first. What Halley tells it is in
%% router_presence_SUITE.
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
-export([metadata/1]).
-export([whereis_in_order/1]).
-export([online/1]).
-export([send_many/1]).
-export([ids_that_look_alike/1]).
-export([sends_wait_for_nobody/1]).
-export([without_a_router/1]).
-export([many_logins/1]).
-export([many_of_one_id/1]).
-export([logout/1]).
-export([logout_of_stranger/1]).
-export([local_pid_ends/1]).
-export([dead_pid_logs_in/1]).
-export([remote_pid_ends/1]).
-export([remote_node_is_killed/1]).
-export([odd_messages/1]).
-export([second_router/1]).
-export([both_names/1]).
-export([name_taken/1]).
-export([restart/1]).
-export([linked/1]).
-export([late_down/1]).

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

metadata(Config) ->
    doc("A login can bring a map, which info/1 shows, from any node; the last login as an id counts."),
    [One, Two] = do_on(do_a(Config), fun() ->
        [One, Two] = [do_browser(), do_browser()],
        ok = router:login(1, One, #{device => phone, since => 1}),
        ok = router:login(1, Two),
        ok = router:login(2, One, #{as => two}),
        ok = router:login(1, One, #{device => tablet}),
        [One, Two]
    end),
    [begin
        [{One, #{device := tablet} = Meta}, {Two, Empty}] = do_on(Node, fun router:info/1, [1]),
        {1, 0} = {map_size(Meta), map_size(Empty)},
        [{One, #{as := two}}] = do_on(Node, fun router:info/1, [2]),
        [] = do_on(Node, fun router:info/1, [3])
    end || Node <- [do_a(Config), do_b(Config)]],
    function_clause = do_on(do_a(Config), fun() ->
        try
            router:login(1, One, [{device, phone}])
        catch
            error:Reason -> Reason
        end
    end).

whereis_in_order(Config) ->
    doc("whereis/1 tells the pids of an id, the latest last, on any node."),
    Pids = do_on(do_a(Config), fun() ->
        Pids = [do_browser() || _ <- lists:seq(1, 20)],
        [ok = router:login(1, Pid) || Pid <- Pids],
        Middle = lists:nth(10, Pids),
        ok = router:logout(Middle),
        ok = router:login(1, Middle),
        lists:delete(Middle, Pids) ++ [Middle]
    end),
    [begin
        Pids = do_on(Node, fun router:whereis/1, [1]),
        [] = do_on(Node, fun router:whereis/1, [2])
    end || Node <- [do_a(Config), do_b(Config)]].

online(Config) ->
    doc("online/0 counts ids, not pids; online/1 tells of one."),
    Check = fun(Count, Ids) ->
        [begin
            Count = do_on(Node, fun router:online/0),
            Ids = [Id || Id <- [1, 2, 3], do_on(Node, fun router:online/1, [Id])]
        end || Node <- [do_a(Config), do_b(Config)]]
    end,
    Check(0, []),
    [One, Two] = do_on(do_a(Config), fun() ->
        [One, Two] = [do_browser(), do_browser()],
        ok = router:login(1, One),
        ok = router:login(1, Two),
        ok = router:login(2, Two),
        [One, Two]
    end),
    Check(2, [1, 2]),
    ok = do_on(do_a(Config), fun router:logout/1, [Two]),
    Check(1, [1]),
    ok = do_on(do_a(Config), fun router:logout/1, [One]),
    Check(0, []).

send_many(Config) ->
    doc("Many messages arrive in their order, from the router's node and from another, over the border of a list."),
    Sent = [{N rem 3, N} || N <- lists:seq(1, 2500)],
    [begin
        Pids = do_on(do_a(Config), fun() ->
            [begin
                Pid = do_browser(),
                ok = router:login(Id, Pid),
                Pid
            end || Id <- [0, 1]]
        end),
        ok = do_on(Node, fun router:send_many/1, [Sent]),
        [begin
            Want = [N || {Id0, N} <- Sent, Id0 =:= Id],
            Want = do_on(do_a(Config), fun do_got/1, [Pid])
        end || {Id, Pid} <- lists:zip([0, 1], Pids)],
        ok = do_on(Node, fun router:send_many/1, [[]]),
        [ok = do_on(do_a(Config), fun router:logout/1, [Pid]) || Pid <- Pids]
    end || Node <- [do_a(Config), do_b(Config)]].

ids_that_look_alike(Config) ->
    doc("1, 1.0 and <<\"1\">> are three ids."),
    do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        [ok = router:login(Id, Pid) || Id <- [1, 1.0, <<"1">>]],
        3 = router:online(),
        ok = router:send(1.0, float),
        [float] = do_got(Pid),
        ok = router:logout(Pid),
        0 = router:online()
    end),
    {0, 0} = do_sizes(Config).

sends_wait_for_nobody(Config) ->
    doc("A message does not pass through the router's process: while that is held up, messages go on, from any node."),
    Pid = do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(1, Pid),
        ok = sys:suspend(router),
        Pid
    end),
    ok = do_on(do_a(Config), fun router:send/2, [1, from_a]),
    ok = do_on(do_b(Config), fun router:send/2, [1, from_b]),
    ok = do_on(do_b(Config), fun router:send_many/1, [[{1, many}]]),
    [Pid] = do_on(do_b(Config), fun router:whereis/1, [1]),
    1 = do_on(do_a(Config), fun router:online/0),
    [from_a, from_b, many] = do_on(do_a(Config), fun do_got/1, [Pid]),
    ok = do_on(do_a(Config), fun() -> sys:resume(router) end).

without_a_router(Config) ->
    doc("Without a router the caller exits with noproc, wherever it is; so with one whose node went."),
    ok = do_on(do_a(Config), fun() -> supervisor:terminate_child(halley_sup, router) end),
    ok = do_eventually(fun() -> do_on(do_b(Config), fun() -> global:whereis_name(router) end) =:= undefined end),
    [noproc = do_exit(Node, Function, Args) || Node <- [do_a(Config), do_b(Config)], {Function, Args} <- [
        {login, [1, self()]},
        {logout, [self()]},
        {send, [1, hello]},
        {send_many, [[{1, hello}]]},
        {whereis, [1]},
        {info, [1]},
        {online, []},
        {online, [1]},
        {stats, []}
    ]],
    {ok, _} = do_on(do_a(Config), fun() -> supervisor:restart_child(halley_sup, router) end),
    ok = do_eventually(fun() -> is_pid(do_on(do_b(Config), fun() -> global:whereis_name(router) end)) end),
    ok = do_on(do_b(Config), fun router:send/2, [1, hello]).

do_exit(Node, Function, Args) ->
    do_on(Node, fun() ->
        try apply(router, Function, Args) of
            Result -> {no_exit, Result}
        catch
            exit:{Reason, _} -> Reason
        end
    end).

many_logins(Config) ->
    doc("A hundred thousand processes log in, get a message each, and end at once."),
    {Logins, Sends, Ends} = do_on(do_a(Config), fun() ->
        Count = 100000,
        Self = self(),
        Pids = [spawn(fun() -> do_once(Self) end) || _ <- lists:seq(1, Count)],
        Numbered = lists:zip(lists:seq(1, Count), Pids),
        {Logins, ok} = timer:tc(fun() ->
            lists:foreach(fun({N, Pid}) -> ok = router:login(N, Pid) end, Numbered)
        end),
        Count = router:online(),
        {Sends, ok} = timer:tc(fun() ->
            lists:foreach(fun({N, _}) -> ok = router:send(N, N) end, Numbered)
        end),
        ok = lists:foreach(fun({N, Pid}) ->
            receive
                {Pid, N} -> ok
            end
        end, Numbered),
        {Ends, ok} = timer:tc(fun() ->
            lists:foreach(fun(Pid) -> exit(Pid, kill) end, Pids),
            do_eventually(fun() -> router:online() =:= 0 end)
        end),
        {Logins, Sends, Ends}
    end),
    ct:comment("100,000 logins ~b ms, sends ~b ms, ends ~b ms", [Us div 1000 || Us <- [Logins, Sends, Ends]]),
    {0, 0} = do_sizes(Config).

do_once(Parent) ->
    receive
        {router_msg, Msg} ->
            Parent ! {self(), Msg},
            do_once(Parent)
    end.

many_of_one_id(Config) ->
    doc("Ten thousand pids under one id: a login does not cost a step for each that is there before."),
    Us = do_on(do_a(Config), fun() ->
        Pids = [do_browser() || _ <- lists:seq(1, 10000)],
        {Us, ok} = timer:tc(fun() -> lists:foreach(fun(Pid) -> ok = router:login(1, Pid) end, Pids) end),
        Pids = router:whereis(1),
        ok = router:send(1, hello),
        [[hello] = do_got(Pid) || Pid <- Pids],
        lists:foreach(fun(Pid) -> exit(Pid, kill) end, Pids),
        Us
    end),
    ct:comment("~b ms", [Us div 1000]),
    do_eventually(fun() -> do_sizes(Config) =:= {0, 0} end).

logout(Config) ->
    doc("After logout a pid gets nothing, and its end concerns the router no more."),
    do_on(do_a(Config), fun() ->
        Pid = do_browser(),
        ok = router:login(1, Pid),
        ok = router:logout(Pid),
        ok = router:send(1, hello),
        [] = do_got(Pid),
        {monitored_by, []} = process_info(Pid, monitored_by),
        {monitors, []} = process_info(whereis(router), monitors)
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

both_names(Config) ->
    doc("The router has its name on its own node, too, where Halley looks for it."),
    Router = do_on(do_b(Config), fun() -> global:whereis_name(router) end),
    Router = do_on(do_a(Config), fun() -> whereis(router) end),
    undefined = do_on(do_b(Config), fun() -> whereis(router) end).

name_taken(Config) ->
    doc("A router does not start where another process has the name, and leaves nothing of itself."),
    do_on(do_a(Config), fun() ->
        ok = supervisor:terminate_child(halley_sup, router),
        Other = do_browser(),
        true = register(router, Other),
        {error, {name_taken, router, Other}} = supervisor:restart_child(halley_sup, router),
        undefined = global:whereis_name(router),
        true = unregister(router),
        {ok, _} = supervisor:restart_child(halley_sup, router)
    end).

restart(Config) ->
    doc("Who was logged in outlives a router that crashed, hears of it by a monitor, and logs in at the next one."),
    do_on(do_a(Config), fun() ->
        Router = global:whereis_name(router),
        Self = self(),
        Pid = spawn(fun() -> do_loyal(Self, []) end),
        receive {Pid, logged_in} -> ok end,
        true = exit(Router, kill),
        receive {Pid, logged_in} -> ok end,
        true = global:whereis_name(router) =/= Router,
        ok = router:send(1, hello),
        [hello] = do_got(Pid)
    end),
    {1, 1} = do_sizes(Config).

%% As the router's documentation tells it.
do_loyal(Parent, _) ->
    case global:whereis_name(router) of
        undefined ->
            timer:sleep(5),
            do_loyal(Parent, []);
        Router ->
            Ref = erlang:monitor(process, Router),
            ok = router:login(1, self()),
            Parent ! {self(), logged_in},
            do_logged_in(Parent, Ref, [])
    end.

do_logged_in(Parent, Ref, Got) ->
    receive
        {'DOWN', Ref, process, _, _} ->
            do_loyal(Parent, []);
        {router_msg, Msg} ->
            do_logged_in(Parent, Ref, [Msg | Got]);
        {got, From} ->
            From ! {self(), lists:reverse(Got)},
            do_logged_in(Parent, Ref, [])
    end.

linked(Config) ->
    doc("A process that links itself ends with the router, as in the articles; its own crash does not harm the router."),
    do_on(do_a(Config), fun() ->
        Router = global:whereis_name(router),
        Login = fun(Id) ->
            Self = self(),
            Pid = spawn(fun() ->
                true = link(Router),
                ok = router:login(Id, self()),
                Self ! {self(), linked},
                receive crash -> exit(crash) end
            end),
            receive {Pid, linked} -> Pid end
        end,
        Login(1) ! crash,
        do_eventually(fun() -> not router:online(1) end),
        Router = global:whereis_name(router),
        Pid = Login(2),
        true = exit(Router, kill),
        do_eventually(fun() -> not is_process_alive(Pid) end)
    end).

late_down(Config) ->
    doc("A pid whose connection was lost and that logs in again stays, also if the router hears of the loss later."),
    Pid = do_on(do_b(Config), fun do_browser/0),
    do_on(do_a(Config), fun() ->
        Self = self(),
        Router = whereis(router),
        Waiting = fun(N) -> element(2, process_info(Router, message_queue_len)) >= N end,
        ok = router:login(1, Pid),
        ok = sys:suspend(Router),
        _ = spawn(fun() ->
            ok = router:login(1, Pid),
            Self ! logged_in
        end),
        do_eventually(fun() -> Waiting(1) end),
        true = erlang:disconnect_node(node(Pid)),
        %% The DOWN, and the nodedown.
        do_eventually(fun() -> Waiting(3) end),
        ok = sys:resume(Router),
        receive logged_in -> ok end,
        #{pids := 1} = router:stats(),
        ok = router:send(1, hello),
        [hello] = do_got(Pid),
        {monitors, [{process, Pid}]} = process_info(Router, monitors)
    end).

%% Helpers.

do_a(Config) ->
    proplists:get_value(a, Config).

do_b(Config) ->
    proplists:get_value(b, Config).

%% How many pairs of an id and a pid there are, and how many pids.
do_sizes(Config) ->
    do_on(do_a(Config), fun() ->
        #{pids := Pids} = router:stats(),
        {ets:info(router_ids, size), Pids}
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
