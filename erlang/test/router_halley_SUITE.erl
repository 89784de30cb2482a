%% The router with Halley itself: told by --presence, by --login and --logout, by both,
%% by neither; and what clients send, --inbox.
-module(router_halley_SUITE).

-export([all/0]).
-export([groups/0]).
-export([init_per_suite/1]).
-export([end_per_suite/1]).
-export([init_per_group/2]).
-export([end_per_group/2]).
-export([init_per_testcase/2]).
-export([end_per_testcase/2]).

%% presence, login and both.
-export([browsers_come_and_go/1]).
-export([any_uid/1]).
-export([each_message_once/1]).
-export([send_in_order/1]).
-export([closed_by_erlang/1]).
-export([halley_is_killed/1]).
-export([erlang_is_killed/1]).
-export([connection_is_lost/1]).
-export([many_come_and_go/1]).
%% presence and both.
-export([router_is_killed/1]).
-export([router_comes_late/1]).
-export([two_halleys/1]).
%% neither.
-export([nobody_is_told/1]).
%% inbox.
-export([client_sends/1]).
-export([nobody_takes_it/1]).

-import(halley_test, [doc/1, do_on/2, do_on/3, do_eventually/1, do_name/1, do_login/2, do_chunk/1, do_chunks/2, do_keep/1, do_kept/1]).

all() ->
    [{group, Group} || Group <- [presence, login, both, neither, inbox]].

groups() ->
    Common = [
        browsers_come_and_go,
        any_uid,
        each_message_once,
        send_in_order,
        closed_by_erlang,
        halley_is_killed,
        erlang_is_killed,
        connection_is_lost,
        many_come_and_go
    ],
    Told = [router_is_killed, router_comes_late, two_halleys],
    [
        {presence, [], Common ++ Told},
        {login, [], Common},
        {both, [], Common ++ Told},
        {neither, [], [nobody_is_told]},
        {inbox, [], [client_sends, nobody_takes_it]}
    ].

init_per_suite(Config0) ->
    case halley_test:do_need_flag("--presence", Config0) of
        Config when is_list(Config) -> halley_test:do_start_epmd(Config);
        Missing -> Missing
    end.

end_per_suite(Config) ->
    halley_test:do_stop_epmd(Config).

init_per_group(Group, Config) ->
    Presence = ["--presence", "router"],
    Login = ["--login", "router:login", "--logout", "router:logout"],
    Args = case Group of
        presence -> Presence;
        login -> Login;
        both -> Presence ++ Login;
        neither -> [];
        inbox -> ["--inbox", "inbox"]
    end,
    [{group, Group}, {args, Args} | Config].

end_per_group(_, _) ->
    ok.

init_per_testcase(_, Config0) ->
    Name = do_name("a"),
    A = do_start_a(Config0, Name),
    Config = [{a, A}, {a_name, Name} | Config0],
    [{halley, do_start_halley(Config, do_name("halley"))} | Config].

end_per_testcase(_, Config) ->
    halley_test:do_stop_halley(do_halley(Config)),
    halley_test:do_stop_node(do_a(Config)).

%% Cases.

browsers_come_and_go(Config) ->
    doc("Several browsers of an id: each is in the router from its beginning to its end, and gets what is sent."),
    Halley = #{node := Node} = do_halley(Config),
    [One, Two] = [do_login(Halley, "123") || _ <- [1, 2]],
    Other = do_login(Halley, "124"),
    do_is(Config, #{123 => 2, 124 => 1}),
    [Node, Node] = [node(Pid) || Pid <- do_on(do_a(Config), fun router:whereis/1, [123])],
    ok = do_send(Config, 123, <<"hello">>),
    ok = do_send(Config, 124, <<"other">>),
    [<<"hello">> = do_chunk(Socket) || Socket <- [One, Two]],
    <<"other">> = do_chunk(Other),
    ok = gen_tcp:close(One),
    do_is(Config, #{123 => 1, 124 => 1}),
    Again = do_login(Halley, "123"),
    do_is(Config, #{123 => 2, 124 => 1}),
    ok = do_send(Config, 123, <<"again">>),
    [<<"again">> = do_chunk(Socket) || Socket <- [Two, Again]],
    [ok = gen_tcp:close(Socket) || Socket <- [Two, Other, Again]],
    do_is(Config, #{}).

any_uid(Config) ->
    doc("The ids are the uids: numbers up to 2^63-1, names."),
    Halley = do_halley(Config),
    Long = binary:copy(<<"a">>, 255),
    Uids = [
        {"1", 1},
        {"9223372036854775807", 9223372036854775807},
        {"bob", <<"bob">>},
        {"b%20b", <<"b b">>},
        {"007", <<"007">>},
        {binary_to_list(Long), Long}
    ],
    Sockets = [{Uid, do_login(Halley, Path)} || {Path, Uid} <- Uids],
    do_is(Config, maps:from_list([{Uid, 1} || {_, Uid} <- Uids])),
    [begin
        ok = do_send(Config, Uid, <<"hello">>),
        <<"hello">> = do_chunk(Socket)
    end || {Uid, Socket} <- Sockets].

each_message_once(Config) ->
    doc("A browser gets each message once, also if its pid is logged in by hand as well, as the same id and another."),
    Halley = do_halley(Config),
    Socket = do_login(Halley, "1"),
    do_is(Config, #{1 => 1}),
    ok = do_on(do_a(Config), fun() ->
        [Pid] = router:whereis(1),
        ok = router:login(1, Pid, #{by => hand}),
        ok = router:login(friends, Pid),
        [{Pid, #{by := hand}}] = router:info(1),
        ok = router:send(1, <<"one">>),
        ok = router:send(friends, <<"two">>),
        router:send(1, <<"three">>)
    end),
    [<<"one">>, <<"two">>, <<"three">>] = do_chunks(Socket, 3),
    ok = gen_tcp:close(Socket),
    do_is(Config, #{}).

send_in_order(Config) ->
    doc("What one process sends to an id arrives in the order it was sent, by router and by halley, one and many."),
    Socket = do_login(do_halley(Config), "1"),
    do_is(Config, #{1 => 1}),
    do_eventually(fun() -> length(do_on(do_a(Config), fun halley:nodes/0)) =:= 1 end),
    ok = do_on(do_a(Config), fun() ->
        lists:foreach(fun(N) ->
            ok = router:send(1, integer_to_binary(4 * N)),
            ok = halley:send(1, integer_to_binary(4 * N + 1)),
            ok = router:send_many([{1, integer_to_binary(4 * N + M)} || M <- [2, 3]])
        end, lists:seq(0, 999))
    end),
    Sent = [integer_to_binary(N) || N <- lists:seq(0, 3999)],
    Sent = do_chunks(Socket, 4000).

closed_by_erlang(Config) ->
    doc("A connection that Erlang ends leaves the router."),
    Halley = do_halley(Config),
    [One, Two] = [do_login(Halley, "1") || _ <- [1, 2]],
    do_is(Config, #{1 => 2}),
    ok = do_on(do_a(Config), fun() -> halley:close(hd(router:whereis(1))) end),
    do_is(Config, #{1 => 1}),
    true = do_on(do_a(Config), fun() -> exit(hd(router:whereis(1)), kill) end),
    do_is(Config, #{}),
    [[<<>>, closed] = do_chunks(Socket, 2) || Socket <- [One, Two]].

halley_is_killed(Config) ->
    doc("With Halley (kill -9) its connections leave the router; those of the next Halley come. A local pid stays."),
    A = do_a(Config),
    Halley = #{name := Name} = do_halley(Config),
    Local = do_on(A, fun() -> spawn(fun() -> timer:sleep(infinity) end) end),
    ok = do_on(A, fun router:login/2, [1, Local]),
    Sockets = [do_login(Halley, "1") || _ <- [1, 2, 3]],
    do_is(Config, #{1 => 4}),
    halley_test:do_kill_halley(Halley),
    do_is(Config, #{1 => 1}),
    ok = do_send(Config, 1, <<"to nobody">>),
    halley_test:do_stop_halley(Halley),
    Again = do_start_halley(Config, Name),
    Socket = do_login(Again, "1"),
    do_is(Config, #{1 => 2}),
    ok = do_send(Config, 1, <<"hello">>),
    <<"hello">> = do_chunk(Socket),
    [gen_tcp:close(S) || S <- Sockets],
    halley_test:do_stop_halley(Again),
    do_is(Config, #{1 => 1}).

erlang_is_killed(Config) ->
    doc("The Erlang node is killed and comes back: Halley kept its browsers, and the new router soon knows them."),
    Halley = do_halley(Config),
    Sockets = [do_login(Halley, integer_to_list(Uid)) || Uid <- [1, 1, 2]],
    do_is(Config, #{1 => 2, 2 => 1}),
    halley_test:do_kill_node(do_a(Config)),
    [Gone | Stay] = Sockets,
    ok = gen_tcp:close(Gone),
    New = do_login(Halley, "3"),
    A = do_start_a(Config, proplists:get_value(a_name, Config)),
    Back = [{a, A} | proplists:delete(a, Config)],
    do_is(Back, #{1 => 1, 2 => 1, 3 => 1}),
    [ok = do_send(Back, Uid, integer_to_binary(Uid)) || Uid <- [1, 2, 3]],
    [<<"1">>, <<"2">>, <<"3">>] = [do_chunk(Socket) || Socket <- Stay ++ [New]],
    halley_test:do_stop_node(A).

connection_is_lost(Config) ->
    doc("When only the connection of the two nodes is lost, the same pids are there after it is back."),
    Halley = #{node := Node} = do_halley(Config),
    Sockets = [do_login(Halley, integer_to_list(Uid)) || Uid <- [1, 1, 2]],
    do_is(Config, #{1 => 2, 2 => 1}),
    Pids = do_on(do_a(Config), fun router:whereis/1, [1]),
    true = do_on(do_a(Config), fun() -> erlang:disconnect_node(Node) end),
    do_is(Config, #{1 => 2, 2 => 1}),
    Sorted = lists:sort(Pids),
    Sorted = lists:sort(do_on(do_a(Config), fun router:whereis/1, [1])),
    ok = do_send(Config, 1, <<"hello">>),
    [<<"hello">>, <<"hello">>] = [do_chunk(Socket) || Socket <- lists:sublist(Sockets, 2)].

many_come_and_go(Config) ->
    doc("Hundreds of browsers that come and go at random, ten at a time: at the end the router has those that are there."),
    Halley = do_halley(Config),
    Self = self(),
    Seed = erlang:unique_integer([positive]) bxor erlang:system_time(),
    ct:pal("seed ~b", [Seed]),
    Workers = [spawn_link(fun() ->
        _ = rand:seed(exsss, Seed + N),
        Open = do_random(Halley, N, 60, []),
        Self ! {self(), N, length(Open)},
        receive stop -> ok end
    end) || N <- lists:seq(1, 10)],
    Left = maps:from_list([receive {Worker, N, Open} -> {N, Open} end || Worker <- Workers]),
    do_is(Config, maps:filter(fun(_, Open) -> Open > 0 end, Left)),
    Halleys = maps:values(maps:get(halleys, do_on(do_a(Config), fun router:stats/0))),
    [0 = Missed || #{missed := Missed} <- Halleys],
    [Worker ! stop || Worker <- Workers],
    do_is(Config, #{}).

do_random(_, _, 0, Open) ->
    Open;
do_random(Halley, N, Steps, Open) ->
    case rand:uniform(5) of
        Close when Close =< 2, Open =/= [] ->
            Socket = lists:nth(rand:uniform(length(Open)), Open),
            %% Some with a reset.
            _ = Close =:= 1 andalso inet:setopts(Socket, [{linger, {true, 0}}]),
            ok = gen_tcp:close(Socket),
            do_random(Halley, N, Steps - 1, lists:delete(Socket, Open));
        _ ->
            do_random(Halley, N, Steps - 1, [do_login(Halley, integer_to_list(N)) | Open])
    end.

router_is_killed(Config) ->
    doc("A router that was killed is told anew who is there, also of those who came and went meanwhile."),
    Halley = do_halley(Config),
    [One | Sockets] = [do_login(Halley, integer_to_list(Uid)) || Uid <- [1, 1, 2]],
    do_is(Config, #{1 => 2, 2 => 1}),
    true = do_on(do_a(Config), fun() -> exit(whereis(router), kill) end),
    ok = gen_tcp:close(One),
    New = do_login(Halley, "3"),
    do_is(Config, #{1 => 1, 2 => 1, 3 => 1}),
    [ok = do_send(Config, Uid, integer_to_binary(Uid)) || Uid <- [1, 2, 3]],
    [<<"1">>, <<"2">>, <<"3">>] = [do_chunk(Socket) || Socket <- Sockets ++ [New]].

router_comes_late(Config) ->
    doc("A router that starts, or is upgraded, while browsers are there learns of them all."),
    A = do_a(Config),
    Halley = do_halley(Config),
    ok = do_on(A, fun() -> supervisor:terminate_child(halley_sup, router) end),
    Sockets = [do_login(Halley, integer_to_list(Uid)) || Uid <- lists:seq(1, 200)],
    {ok, _} = do_on(A, fun() -> supervisor:restart_child(halley_sup, router) end),
    do_is(Config, maps:from_list([{Uid, 1} || Uid <- lists:seq(1, 200)])),
    #{node := Node} = Halley,
    do_eventually(fun() ->
        case do_on(A, fun router:stats/0) of
            #{halleys := #{Node := #{whole := true}}} -> true;
            Stats -> Stats
        end
    end),
    [ok = gen_tcp:close(Socket) || Socket <- Sockets],
    do_is(Config, #{}).

two_halleys(Config) ->
    doc("Two Halleys: an id has browsers on both; the end of one leaves those of the other."),
    One = do_halley(Config),
    First = do_login(One, "1"),
    do_is(Config, #{1 => 1}),
    %% It comes without a connection, which says nothing of the other's.
    Two = do_start_halley(Config, do_name("halley")),
    #{node := Node} = Two,
    do_eventually(fun() -> lists:member(Node, do_on(do_a(Config), fun() -> nodes(hidden) end)) end),
    Second = do_login(Two, "1"),
    do_is(Config, #{1 => 2}),
    ok = do_send(Config, 1, <<"hello">>),
    [<<"hello">> = do_chunk(Socket) || Socket <- [First, Second]],
    halley_test:do_kill_halley(Two),
    do_is(Config, #{1 => 1}),
    ok = do_send(Config, 1, <<"again">>),
    <<"again">> = do_chunk(First),
    halley_test:do_stop_halley(Two).

nobody_is_told(Config) ->
    doc("Without the flags the router knows nobody, and Halley's uids are reached all the same."),
    Socket = do_login(do_halley(Config), "1"),
    do_eventually(fun() -> length(do_on(do_a(Config), fun halley:nodes/0)) =:= 1 end),
    {ok, 1} = do_on(do_a(Config), fun() -> halley:deliver(1, <<"hello">>) end),
    <<"hello">> = do_chunk(Socket),
    timer:sleep(1500),
    do_is(Config, #{}).

client_sends(Config) ->
    doc("What a client posts comes as a message, with the pid of its uid's newest stream; that can be answered."),
    A = do_a(Config),
    Halley = do_halley(Config),
    Keeper = do_inbox(A),
    do_eventually(fun() -> do_post(Halley, "7", <<"are you there">>) =:= 202 end),
    Socket = do_login(Halley, "123"),
    [begin
        202 = do_post(Halley, Uid, Body)
    end || {Uid, Body} <- [{"123", <<"hello">>}, {"123", <<>>}, {"bob", binary:copy(<<"x">>, 65536)}]],
    413 = do_post(Halley, "123", binary:copy(<<"x">>, 65537)),
    Got = fun() -> do_on(A, fun() -> do_kept(Keeper) end) end,
    do_eventually(fun() -> length(Got()) >= 4 end),
    [{message, 7, undefined, <<"are you there">>}, {message, 123, Pid, <<"hello">>}, {message, 123, Pid, <<>>},
        {message, <<"bob">>, undefined, Long}] = Got(),
    65536 = byte_size(Long),
    [Pid] = do_on(A, fun() -> halley:pids(123) end),
    _ = do_on(A, fun() -> Pid ! <<"answer">> end),
    <<"answer">> = do_chunk(Socket).

nobody_takes_it(Config) ->
    doc("Without a process of that name, or without its node, clients are told to try again later."),
    A = do_a(Config),
    Halley = do_halley(Config),
    503 = do_post(Halley, "1", <<"hello">>),
    Keeper = do_inbox(A),
    do_eventually(fun() -> do_post(Halley, "1", <<"hello">>) =:= 202 end),
    true = do_on(A, fun() -> exit(Keeper, kill) end),
    do_eventually(fun() -> do_post(Halley, "1", <<"hello">>) =:= 503 end),
    _ = do_inbox(A),
    do_eventually(fun() -> do_post(Halley, "1", <<"hello">>) =:= 202 end),
    halley_test:do_kill_node(A),
    do_eventually(fun() -> do_post(Halley, "1", <<"hello">>) =:= 503 end).

%% Helpers.

do_a(Config) ->
    proplists:get_value(a, Config).

do_halley(Config) ->
    proplists:get_value(halley, Config).

do_start_a(Config, Name) ->
    A = halley_test:do_start_node(Config, Name, []),
    ok = halley_test:do_start_app(A, [{router, true}]),
    A.

do_start_halley(Config, Name) ->
    halley_test:do_start_halley(Config, [do_a(Config)], Name, proplists:get_value(args, Config)).

do_send(Config, Id, Body) ->
    do_on(do_a(Config), fun router:send/2, [Id, Body]).

%% Soon the router has exactly these ids, each with so many pids.
do_is(Config, Want) ->
    do_eventually(fun() -> do_on(do_a(Config), fun() -> do_is(Want) end) end).

do_is(Want) ->
    try {ets:tab2list(router_ids), router:online()} of
        {Rows, Online} ->
            Is = lists:foldl(fun({Id, _}, Acc) ->
                maps:update_with(Id, fun(N) -> N + 1 end, 1, Acc)
            end, #{}, Rows),
            Is =:= Want andalso Online =:= map_size(Want) orelse {Is, Online}
    catch
        error:badarg -> no_router;
        exit:{noproc, _} -> no_router
    end.

%% A process registered as inbox, which keeps what it gets.
do_inbox(A) ->
    do_on(A, fun() ->
        Keeper = spawn(fun() -> do_keep([]) end),
        true = register(inbox, Keeper),
        Keeper
    end).

%% The status of the answer.
do_post(#{port := Port}, Uid, Body) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {packet, http_bin}]),
    _ = gen_tcp:send(Socket, ["POST /test/", Uid, " HTTP/1.1\r\nHost: localhost\r\nContent-Length: ",
        integer_to_list(byte_size(Body)), "\r\n\r\n", Body]),
    {ok, {http_response, {1, 1}, Status, _}} = gen_tcp:recv(Socket, 0, 15000),
    ok = gen_tcp:close(Socket),
    Status.
