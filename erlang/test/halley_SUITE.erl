%% The module that users call: what it refuses, what it puts on the wire, and
%% what a browser of Halley's gets of it.
-module(halley_SUITE).

-export([all/0]).
-export([groups/0]).
-export([init_per_suite/1]).
-export([end_per_suite/1]).
-export([init_per_group/2]).
-export([end_per_group/2]).
-export([init_per_testcase/2]).
-export([end_per_testcase/2]).

%% away.
-export([not_started/1]).
-export([nobody_up/1]).
-export([node_away/1]).
-export([bad_uids/1]).
-export([bad_bodies/1]).
-export([bad_dests/1]).
-export([bad_pids/1]).

%% wire.
-export([messages/1]).
-export([messages_to_one/1]).
-export([lists_of_100/1]).
-export([lists_of_large_bodies/1]).
-export([nothing_if_one_is_bad/1]).
-export([deliver_sum/1]).
-export([deliver_errors/1]).
-export([deliver_asks_all_at_once/1]).
-export([pids_of_all/1]).
-export([info_asks_its_node/1]).
-export([close_all_of_a_uid/1]).
-export([close_one/1]).

%% halley.
-export([send_reaches_browser/1]).
-export([send_to_one_node/1]).
-export([send_in_order/1]).
-export([send_many_in_order/1]).
-export([broadcast_reaches_all/1]).
-export([deliver_counts/1]).
-export([deliver_over_two/1]).
-export([close_ends_stream/1]).
-export([any_uid/1]).
-export([msggen_drives_halley/1]).
-export([msggen_drives_halley_by_name/1]).
-export([halley_goes_while_sending/1]).

%% pids.
-export([send_to_pid/1]).
-export([what_a_pid_tells/1]).
-export([link_and_monitor/1]).
-export([close_by_uid_and_pid/1]).
-export([pids_over_two/1]).

-import(halley_test, [doc/1, do_on/2, do_eventually/1, do_name/1, do_login/2, do_chunk/1, do_chunks/2, do_keep/1, do_kept/1]).

all() ->
    [{group, away}, {group, wire}, {group, halley}, {group, pids}].

groups() ->
    [
        {away, [], [
            not_started,
            nobody_up,
            node_away,
            bad_uids,
            bad_bodies,
            bad_dests,
            bad_pids
        ]},
        {wire, [], [
            messages,
            messages_to_one,
            lists_of_100,
            lists_of_large_bodies,
            nothing_if_one_is_bad,
            deliver_sum,
            deliver_errors,
            deliver_asks_all_at_once,
            pids_of_all,
            info_asks_its_node,
            close_all_of_a_uid,
            close_one
        ]},
        {halley, [], [
            send_reaches_browser,
            send_to_one_node,
            send_in_order,
            send_many_in_order,
            broadcast_reaches_all,
            deliver_counts,
            deliver_over_two,
            close_ends_stream,
            any_uid,
            msggen_drives_halley,
            msggen_drives_halley_by_name,
            halley_goes_while_sending
        ]},
        {pids, [], [
            send_to_pid,
            what_a_pid_tells,
            link_and_monitor,
            close_by_uid_and_pid,
            pids_over_two
        ]}
    ].

init_per_suite(Config) ->
    halley_test:do_start_epmd(Config).

end_per_suite(Config) ->
    halley_test:do_stop_epmd(Config).

init_per_group(halley, Config) ->
    halley_test:do_need_halley([{group, halley} | Config]);
init_per_group(pids, Config) ->
    %% Came with the pids.
    halley_test:do_need_flag("--presence", [{group, halley} | Config]);
init_per_group(Group, Config) ->
    [{group, Group} | Config].

end_per_group(_, _) ->
    ok.

init_per_testcase(Case, Config0) ->
    A = halley_test:do_start_node(Config0, do_name("a"), []),
    Config = [{a, A} | Config0],
    ok = case Case of
        not_started -> ok;
        _ -> halley_test:do_start_app(A, [])
    end,
    case proplists:get_value(group, Config) of
        away -> Config;
        wire -> do_init_wire(Config);
        halley -> do_init_halley(Config)
    end.

%% Two nodes that play Halley, and answer every deliver with 1 and 2.
do_init_wire(Config) ->
    A = do_a(Config),
    Fakes = [begin
        Fake = {_, Node} = halley_test:do_start_node(Config, do_name("fake"), ["-hidden"]),
        ok = do_on(Fake, fun() -> halley_fake:start(do_answer({ok, N})) end),
        true = do_on(A, fun() -> net_kernel:connect_node(Node) end),
        Fake
    end || N <- [1, 2]],
    do_eventually(fun() -> length(do_on(A, fun halley:nodes/0)) =:= 2 end),
    [{fakes, Fakes} | Config].

do_init_halley(Config) ->
    A = do_a(Config),
    Halley = #{node := Node} = halley_test:do_start_halley(Config, [A]),
    do_eventually(fun() -> do_on(A, fun halley:nodes/0) =:= [Node] end),
    [{halley, Halley} | Config].

end_per_testcase(_, Config) ->
    case proplists:get_value(halley, Config) of
        undefined -> ok;
        Halley -> halley_test:do_stop_halley(Halley)
    end,
    [halley_test:do_stop_node(Node) || Node <- [do_a(Config) | proplists:get_value(fakes, Config, [])]].

%% Cases without Halley.

not_started(Config) ->
    doc("Without the application there are no nodes to ask for; a named node can still be sent to."),
    do_on(do_a(Config), fun() ->
        [{not_started, halley} = do_error(Fun, Args) || {Fun, Args} <- [
            {nodes, []},
            {send, [1, <<"x">>]},
            {send_many, [[{1, <<"x">>}]]},
            {deliver, [1, <<"x">>]},
            {pids, [1]},
            {close, [1]},
            {close, [1, kick]}
        ]],
        ok = halley_fake:start(fun(_) -> {ok, 1} end),
        ok = halley:send(node(), 1, <<"x">>),
        {ok, 1} = halley:deliver(node(), 1, <<"x">>),
        [{1, <<"x">>}] = halley_fake:got()
    end).

nobody_up(Config) ->
    doc("With no Halley node up a send is ok, as `!' is; deliver says that nobody could be asked."),
    do_on(do_a(Config), fun() ->
        [] = halley:nodes(),
        ok = halley:send(1, <<"x">>),
        ok = halley:send_many([{1, <<"x">>}]),
        ok = halley:broadcast(<<"x">>),
        ok = halley:close(1, kick),
        {error, no_halley} = halley:close(1),
        [] = halley:pids(1),
        {error, no_halley} = halley:deliver(1, <<"x">>)
    end).

node_away(Config) ->
    doc("To a node that cannot be reached a send is ok as well, and deliver names it."),
    do_on(do_a(Config), fun() ->
        Away = 'nobody@localhost',
        ok = halley:send(Away, 1, <<"x">>),
        ok = halley:send_many(Away, [{1, <<"x">>}]),
        ok = halley:close(Away, 1, kick),
        {error, {nodedown, Away}} = halley:deliver(Away, 1, <<"x">>),
        {error, {nodedown, Away}} = halley:deliver({comet, Away}, 1, <<"x">>),
        {error, noproc} = halley:deliver(node(), 1, <<"x">>)
    end).

bad_uids(Config) ->
    doc("A uid is an integer from 1 to 2^63-1 or a binary of 1 to 255 bytes; each limit, and past it."),
    Max = 16#7FFFFFFFFFFFFFFF,
    do_on(do_a(Config), fun() ->
        [ok = halley:send(Uid, <<"x">>) || Uid <- [1, Max, <<"a">>, binary:copy(<<"a">>, 255)]],
        [begin
            {bad_uid, Uid} = do_error(send, [Uid, <<"x">>]),
            {bad_uid, Uid} = do_error(send, [node(), Uid, <<"x">>]),
            {bad_uid, Uid} = do_error(send_many, [[{Uid, <<"x">>}]]),
            {bad_uid, Uid} = do_error(deliver, [Uid, <<"x">>]),
            {bad_uid, Uid} = do_error(deliver, [node(), Uid, <<"x">>]),
            {bad_uid, Uid} = do_error(close, [Uid, kick]),
            {bad_uid, Uid} = do_error(pids, [Uid]),
            is_pid(Uid) orelse begin
                {bad_uid, Uid} = do_error(close, [Uid])
            end
        end || Uid <- [0, -1, Max + 1, <<>>, binary:copy(<<"a">>, 256), <<1:1>>, atom, "list", 1.0, self()]]
    end).

bad_bodies(Config) ->
    doc("A body is a binary or an iolist."),
    do_on(do_a(Config), fun() ->
        [ok = halley:send(1, Body) || Body <- [<<>>, [], "text", [<<"a">>, [$b | <<"c">>]]]],
        [begin
            {bad_body, Body} = do_error(send, [1, Body]),
            {bad_body, Body} = do_error(send, [node(), 1, Body]),
            {bad_body, Body} = do_error(send_many, [[{1, Body}]]),
            {bad_body, Body} = do_error(broadcast, [Body]),
            {bad_body, Body} = do_error(deliver, [1, Body])
        end || Body <- [atom, 1, <<1:1>>, [256], [-1], [atom], {tuple}]],
        [{bad_message, Message} = do_error(send_many, [[{1, <<"x">>}, Message]])
            || Message <- [x, {1}, {1, <<"x">>, y}]],
        {bad_message, x} = do_error(send_many, [x])
    end).

bad_dests(Config) ->
    doc("A destination is a node, or a name and a node."),
    do_on(do_a(Config), fun() ->
        [begin
            {bad_dest, Dest} = do_error(send, [Dest, 1, <<"x">>]),
            {bad_dest, Dest} = do_error(send_many, [Dest, [{1, <<"x">>}]]),
            {bad_dest, Dest} = do_error(broadcast, [Dest, <<"x">>]),
            {bad_dest, Dest} = do_error(deliver, [Dest, 1, <<"x">>]),
            {bad_dest, Dest} = do_error(close, [Dest, 1, kick])
        end || Dest <- ["halley@localhost", {"httpd", node()}, {httpd, self()}, self(), {httpd, node(), 1}]]
    end).

bad_pids(Config) ->
    doc("The pid of a connection is never one of this node."),
    do_on(do_a(Config), fun() ->
        [{bad_pid, Pid} = do_error(info, [Pid]) || Pid <- [self(), 1, <<"1">>, make_ref()]],
        {bad_pid, Pid} = do_error(close, [self()]),
        true = Pid =:= self()
    end).

%% Cases about what is sent.

messages(Config) ->
    doc("Each node that is up gets the messages as DESIGN.md has them; an iolist arrives as a binary."),
    ok = do_on(do_a(Config), fun() ->
        ok = halley:send(1, <<"a">>),
        ok = halley:send(<<"bob">>, ["b", <<"c">>]),
        ok = halley:send_many([{1, <<"d">>}, {2, "e"}]),
        ok = halley:send_many([]),
        ok = halley:broadcast(["f"]),
        ok = halley:close(1, kick)
    end),
    [do_got(Fake, [
        {1, <<"a">>},
        {<<"bob">>, <<"bc">>},
        [{1, <<"d">>}, {2, <<"e">>}],
        {all, <<"f">>},
        {close, 1, kick}
    ]) || Fake <- do_fakes(Config)].

messages_to_one(Config) ->
    doc("With a destination one node gets them, the other does not."),
    [One = {_, Node}, Two] = do_fakes(Config),
    ok = do_on(do_a(Config), fun() ->
        ok = halley:send(Node, 1, <<"a">>),
        ok = halley:send({httpd, Node}, 1, <<"b">>),
        ok = halley:send_many(Node, [{1, <<"c">>}]),
        ok = halley:broadcast(Node, <<"d">>),
        ok = halley:close(Node, 1, kick)
    end),
    do_got(One, [{1, <<"a">>}, {1, <<"b">>}, [{1, <<"c">>}], {all, <<"d">>}, {close, 1, kick}]),
    do_got(Two, []).

lists_of_100(Config) ->
    doc("Many messages go in lists of 100: one less, exactly, one more."),
    [One, _] = do_fakes(Config),
    [begin
        Sent = [{N, integer_to_binary(N)} || N <- lists:seq(1, Num)],
        ok = do_on(do_a(Config), fun() -> halley:send_many(Sent) end),
        do_eventually(fun() -> length(do_on(One, fun halley_fake:peek/0)) >= length(Lengths) end),
        Lists = do_on(One, fun halley_fake:got/0),
        Lengths = [length(List) || List <- Lists],
        Sent = lists:append(Lists)
    end || {Num, Lengths} <- [{1, [1]}, {99, [99]}, {100, [100]}, {101, [100, 1]}, {250, [100, 100, 50]}]].

lists_of_large_bodies(Config) ->
    doc("A list holds 1 MiB of bodies at most, or one larger body: a packet stays below --max-packet."),
    [One, _] = do_fakes(Config),
    K = fun(N) -> binary:copy(<<"x">>, N * 1024) end,
    Sizes = [512, 512, 1, 2048, 1, 1],
    ok = do_on(do_a(Config), fun() -> halley:send_many([{1, K(Size)} || Size <- Sizes]) end),
    do_eventually(fun() -> length(do_on(One, fun halley_fake:peek/0)) =:= 4 end),
    [[512, 512], [1], [2048], [1, 1]] =
        [[byte_size(Body) div 1024 || {1, Body} <- List] || List <- do_on(One, fun halley_fake:got/0)].

nothing_if_one_is_bad(Config) ->
    doc("If one message of many is bad, none is sent."),
    Bad = [{N, <<"x">>} || N <- lists:seq(1, 500)] ++ [{0, <<"x">>}],
    do_on(do_a(Config), fun() ->
        {bad_uid, 0} = do_error(send_many, [Bad]),
        halley:send(1, <<"the first">>)
    end),
    [do_got(Fake, [{1, <<"the first">>}]) || Fake <- do_fakes(Config)].

deliver_sum(Config) ->
    doc("deliver/2 answers the sum over the nodes, deliver/3 what the one node answered."),
    [{_, One}, {_, Two}] = do_fakes(Config),
    do_on(do_a(Config), fun() ->
        {ok, 3} = halley:deliver(1, <<"x">>),
        {ok, 1} = halley:deliver(One, 1, <<"x">>),
        {ok, 2} = halley:deliver(Two, 1, <<"x">>)
    end).

deliver_errors(Config) ->
    doc("A node that fails does not hide that others delivered; without any, its error is the answer."),
    [One, Two = {_, Node}] = do_fakes(Config),
    Deliver = fun() -> do_on(do_a(Config), fun() -> halley:deliver(1, <<"x">>) end) end,
    do_answers(One, {error, busy}),
    {ok, 2} = Deliver(),
    do_answers(Two, {ok, 0}),
    {error, busy} = Deliver(),
    do_answers(Two, odd),
    {error, {bad_reply, odd}} = do_on(do_a(Config), fun() -> halley:deliver(Node, 1, <<"x">>) end),
    do_answers(One, {ok, 0}),
    do_answers(Two, {ok, 0}),
    {ok, 0} = Deliver().

deliver_asks_all_at_once(Config) ->
    doc("Nodes that do not answer cost 5 seconds together, and no late answer reaches the caller."),
    [begin
        Late = fun(_) -> timer:sleep(5500), {ok, 1} end,
        ok = do_on(Fake, fun() -> halley_fake:mode(Late) end)
    end || Fake <- do_fakes(Config)],
    do_on(do_a(Config), fun() ->
        {Us, {error, timeout}} = timer:tc(fun() -> halley:deliver(1, <<"x">>) end),
        true = Us > 4900000,
        true = Us < 7000000,
        timer:sleep(1500),
        {messages, []} = process_info(self(), messages)
    end).

pids_of_all(Config) ->
    doc("pids/1 is what all nodes answer; one that answers otherwise, or not at all, is left out."),
    [One, Two] = Fakes = do_fakes(Config),
    Pids = fun() -> do_on(do_a(Config), fun() -> halley:pids(1) end) end,
    [{_, Ones}, {_, Twos}] = Listed = lists:keysort(1, [do_with_pids(Fake, 3) || Fake <- Fakes]),
    All = Ones ++ Twos,
    All = Pids(),
    [] = do_on(do_a(Config), fun() -> halley:pids(2) end),
    do_answers(Two, odd),
    {_, Rest} = lists:keyfind(element(2, One), 1, Listed),
    Rest = Pids(),
    ok = do_on(Two, fun() -> halley_fake:mode(silent) end),
    {Us, Rest} = timer:tc(Pids),
    true = Us > 4900000,
    halley_test:do_kill_node(Two),
    do_eventually(fun() -> Pids() =:= Rest end).

info_asks_its_node(Config) ->
    doc("info/1 asks the node of the pid; undefined is a connection that is gone, or whose node is."),
    [One, Two] = do_fakes(Config),
    Info = fun(Pid) -> do_on(do_a(Config), fun() -> halley:info(Pid) end) end,
    [{_, [Mine | _]}, {_, [Other | _]}] = [do_with_pids(Fake, 1) || Fake <- [One, Two]],
    #{uid := 1, transport := chunked} = Info(Mine),
    undefined = Info(do_on(One, fun() -> self() end)),
    do_answers(One, odd),
    {error, {bad_reply, odd}} = Info(Mine),
    ok = do_on(One, fun() -> halley_fake:mode(silent) end),
    {error, timeout} = Info(Mine),
    %% A node that serves no such name holds no connections.
    Plain = halley_test:do_start_node(Config, do_name("plain"), []),
    undefined = Info(do_on(Plain, fun() -> self() end)),
    halley_test:do_stop_node(Plain),
    #{uid := 1} = Info(Other),
    halley_test:do_kill_node(Two),
    do_eventually(fun() -> Info(Other) =:= undefined end).

close_all_of_a_uid(Config) ->
    doc("close/1 of a uid ends its pids on all nodes, and tells how many there were; errors are deliver's."),
    [One, Two] = Fakes = do_fakes(Config),
    Close = fun() -> do_on(do_a(Config), fun() -> halley:close(1) end) end,
    [{_, Ones}, {_, Twos}] = [do_with_pids(Fake, N) || {Fake, N} <- lists:zip(Fakes, [2, 3])],
    {ok, 5} = Close(),
    [do_eventually(fun() -> do_on(Fake, fun() -> do_kept(Pid) end) =:= [{close, kicked}] end)
        || {Fake, Pids} <- [{One, Ones}, {Two, Twos}], Pid <- Pids],
    {ok, 0} = do_on(do_a(Config), fun() -> halley:close(2) end),
    do_answers(Two, odd),
    {ok, 2} = Close(),
    do_answers(One, odd),
    {error, {bad_reply, odd}} = Close().

close_one(Config) ->
    doc("close/1 of a pid ends that connection; of one whose node is gone it is ok, as ! is."),
    [One, Two] = do_fakes(Config),
    {_, [Closed, Stays]} = do_with_pids(One, 2),
    {_, [Gone]} = do_with_pids(Two, 1),
    ok = do_on(do_a(Config), fun() -> halley:close(Closed) end),
    do_eventually(fun() -> do_on(One, fun() -> do_kept(Closed) end) =:= [{close, kicked}] end),
    [] = do_on(One, fun() -> do_kept(Stays) end),
    halley_test:do_kill_node(Two),
    ok = do_on(do_a(Config), fun() -> halley:close(Gone) end).

%% The fake has N connections of uid 1, processes that keep what they get.
do_with_pids(Fake = {_, Node}, N) ->
    Pids = do_on(Fake, fun() ->
        Pids = [spawn(fun() -> do_keep([]) end) || _ <- lists:seq(1, N)],
        halley_fake:mode(fun
            (stats) -> #{};
            ({whereis, 1}) -> Pids;
            ({whereis, _}) -> [];
            ({info, Pid}) ->
                case lists:member(Pid, Pids) of
                    true -> #{uid => 1, transport => chunked};
                    false -> undefined
                end
        end),
        Pids
    end),
    {Node, Pids}.

%% Cases with Halley and a browser.

send_reaches_browser(Config) ->
    doc("What is sent to a uid is a chunk in its browser, in each of them, and in nobody else's."),
    Halley = do_halley(Config),
    [One, Two] = [do_login(Halley, "123") || _ <- [1, 2]],
    Other = do_login(Halley, "124"),
    ok = do_on(do_a(Config), fun() ->
        ok = halley:send(123, <<"hello">>),
        ok = halley:send(123, ["io", [<<"li">> | "st"]]),
        ok = halley:send(124, <<"other">>)
    end),
    [[<<"hello">>, <<"iolist">>] = do_chunks(Socket, 2) || Socket <- [One, Two]],
    <<"other">> = do_chunk(Other).

send_to_one_node(Config) ->
    doc("send/3 takes a node, or a name and a node."),
    Halley = #{node := Node} = do_halley(Config),
    Socket = do_login(Halley, "123"),
    ok = do_on(do_a(Config), fun() ->
        ok = halley:send(Node, 123, <<"to the node">>),
        ok = halley:send({httpd, Node}, 123, <<"to the name">>)
    end),
    [<<"to the node">>, <<"to the name">>] = do_chunks(Socket, 2).

send_in_order(Config) ->
    doc("What one process sends to one uid arrives in the order it was sent, and all of it."),
    Socket = do_login(do_halley(Config), "1"),
    ok = do_on(do_a(Config), fun() ->
        lists:foreach(fun(N) -> ok = halley:send(1, integer_to_binary(N)) end, lists:seq(1, 5000))
    end),
    Sent = [integer_to_binary(N) || N <- lists:seq(1, 5000)],
    Sent = do_chunks(Socket, 5000).

send_many_in_order(Config) ->
    doc("send_many keeps the order of each uid, over the borders of its lists, and mixed with send."),
    Halley = do_halley(Config),
    Sockets = [{Uid, do_login(Halley, integer_to_list(Uid))} || Uid <- [1, 2, 3]],
    ok = do_on(do_a(Config), fun() ->
        ok = halley:send_many([{1 + N rem 3, integer_to_binary(N)} || N <- lists:seq(0, 2999)]),
        lists:foreach(fun(Uid) -> ok = halley:send(Uid, <<"last">>) end, [1, 2, 3])
    end),
    [begin
        Sent = [integer_to_binary(N) || N <- lists:seq(Uid - 1, 2999, 3)] ++ [<<"last">>],
        Sent = do_chunks(Socket, 1001)
    end || {Uid, Socket} <- Sockets].

broadcast_reaches_all(Config) ->
    doc("A broadcast reaches every browser."),
    Halley = do_halley(Config),
    Sockets = [do_login(Halley, integer_to_list(Uid)) || Uid <- lists:seq(1, 20)],
    ok = do_on(do_a(Config), fun() -> halley:broadcast(<<"to all">>) end),
    [<<"to all">> = do_chunk(Socket) || Socket <- Sockets].

deliver_counts(Config) ->
    doc("deliver answers to how many browsers it was handed; 0 for a uid that is not connected."),
    Halley = #{node := Node} = do_halley(Config),
    Socket = do_login(Halley, "123"),
    do_on(do_a(Config), fun() ->
        {ok, 1} = halley:deliver(123, <<"one">>),
        {ok, 0} = halley:deliver(124, <<"nobody">>),
        {ok, 1} = halley:deliver(Node, 123, <<"two">>),
        {ok, 0} = halley:deliver(Node, 124, <<"nobody">>)
    end),
    Second = do_login(Halley, "123"),
    {ok, 2} = do_on(do_a(Config), fun() -> halley:deliver(123, <<"three">>) end),
    [<<"one">>, <<"two">>, <<"three">>] = do_chunks(Socket, 3),
    <<"three">> = do_chunk(Second).

deliver_over_two(Config) ->
    doc("A user's browsers on two Halley nodes all get a message, and deliver counts them all."),
    A = do_a(Config),
    One = do_halley(Config),
    Two = halley_test:do_start_halley(Config, [A]),
    do_eventually(fun() -> length(do_on(A, fun halley:nodes/0)) =:= 2 end),
    Sockets = [do_login(Halley, "123") || Halley <- [One, Two, Two]],
    {ok, 3} = do_on(A, fun() -> halley:deliver(123, <<"one">>) end),
    ok = do_on(A, fun() -> halley:send(123, <<"two">>) end),
    [[<<"one">>, <<"two">>] = do_chunks(Socket, 2) || Socket <- Sockets],
    halley_test:do_kill_halley(Two),
    do_eventually(fun() -> length(do_on(A, fun halley:nodes/0)) =:= 1 end),
    {ok, 1} = do_on(A, fun() -> halley:deliver(123, <<"three">>) end),
    <<"three">> = do_chunk(hd(Sockets)),
    halley_test:do_stop_halley(Two).

close_ends_stream(Config) ->
    doc("close ends the uid's streams, cleanly: what was sent before arrives, then the last chunk."),
    Halley = do_halley(Config),
    [One, Two] = [do_login(Halley, "123") || _ <- [1, 2]],
    Other = do_login(Halley, "124"),
    ok = do_on(do_a(Config), fun() ->
        ok = halley:send(123, <<"good bye">>),
        ok = halley:close(123, kick),
        ok = halley:send(123, <<"too late">>),
        ok = halley:send(124, <<"still here">>)
    end),
    [[<<"good bye">>, <<>>, closed] = do_chunks(Socket, 3) || Socket <- [One, Two]],
    <<"still here">> = do_chunk(Other),
    {ok, 0} = do_on(do_a(Config), fun() -> halley:deliver(123, <<"x">>) end).

any_uid(Config) ->
    doc("Uids at their limits: 1, 2^63-1, a name, 255 bytes; a binary that spells a number is that number."),
    Halley = do_halley(Config),
    Long = binary:copy(<<"a">>, 255),
    [begin
        Socket = do_login(Halley, Path),
        {ok, 1} = do_on(do_a(Config), fun() -> halley:deliver(Uid, <<"hello">>) end),
        <<"hello">> = do_chunk(Socket)
    end || {Path, Uid} <- [
        {"1", 1},
        {"9223372036854775807", 9223372036854775807},
        {"123", <<"123">>},
        {"bob", <<"bob">>},
        {"b%20b", <<"b b">>},
        {"007", <<"007">>},
        {binary_to_list(Long), Long}
    ]].

msggen_drives_halley(Config) ->
    doc("The articles' generator, through halley:send/2."),
    Halley = do_halley(Config),
    Sockets = [do_login(Halley, integer_to_list(Uid)) || Uid <- lists:seq(1, 5)],
    ok = do_on(do_a(Config), fun() ->
        ok = msggen:start(200, 1, 5),
        halley:broadcast(<<"end">>)
    end),
    do_check_msggen(Sockets, 200).

msggen_drives_halley_by_name(Config) ->
    doc("The articles' generator, as it drove the C node: {httpd, Node} ! {Id, Text}."),
    Halley = #{node := Node} = do_halley(Config),
    Sockets = [do_login(Halley, integer_to_list(Uid)) || Uid <- lists:seq(1, 5)],
    ok = do_on(do_a(Config), fun() ->
        ok = msggen:start({httpd, Node}, 5000, 0, 5),
        halley:broadcast(<<"end">>)
    end),
    do_check_msggen(Sockets, 5000).

halley_goes_while_sending(Config) ->
    doc("Senders do not notice that Halley is killed, nor that it comes back."),
    A = do_a(Config),
    Halley = #{node := Node, name := Name} = do_halley(Config),
    Sender = do_on(A, fun() -> spawn(fun do_send_forever/0) end),
    halley_test:do_kill_halley(Halley),
    do_eventually(fun() -> do_on(A, fun halley:nodes/0) =:= [] end),
    {error, no_halley} = do_on(A, fun() -> halley:deliver(1, <<"x">>) end),
    Again = halley_test:do_start_halley(Config, [A], Name),
    Socket = do_login(Again, "1"),
    do_eventually(fun() -> do_on(A, fun halley:nodes/0) =:= [Node] end),
    <<"tick">> = do_chunk(Socket),
    true = do_on(A, fun() -> is_process_alive(Sender) end),
    halley_test:do_stop_halley(Again).

%% Cases with the pids of Halley's connections.

send_to_pid(Config) ->
    doc("What is sent to a pid arrives in that browser alone, in order with what is sent to its uid."),
    Halley = do_halley(Config),
    [One, Two] = [do_login(Halley, "123") || _ <- [1, 2]],
    ok = do_on(do_a(Config), fun() ->
        [Pid1, Pid2] = halley:pids(123),
        lists:foreach(fun(N) ->
            ok = halley:send(123, [$a, integer_to_list(N)]),
            Pid1 ! <<"b", (integer_to_binary(N))/binary>>,
            Pid1 ! {router_msg, [$c | integer_to_list(N)]}
        end, lists:seq(1, 1000)),
        Pid2 ! "d",
        ok
    end),
    Ones = [iolist_to_binary([Letter, integer_to_list(N)]) || N <- lists:seq(1, 1000), Letter <- "abc"],
    Ones = do_chunks(One, 3000),
    Twos = [iolist_to_binary([$a, integer_to_list(N)]) || N <- lists:seq(1, 1000)] ++ [<<"d">>],
    Twos = do_chunks(Two, 1001).

what_a_pid_tells(Config) ->
    doc("info/1: whose connection it is, and how it does; undefined once it is gone, or Halley."),
    Halley = do_halley(Config),
    One = do_login(Halley, "123"),
    Two = do_login(Halley, "bob"),
    {ok, Address} = inet:sockname(One),
    [Pid1] = do_on(do_a(Config), fun() -> halley:pids(123) end),
    [Pid2] = do_on(do_a(Config), fun() -> halley:pids(<<"bob">>) end),
    Info = fun(Pid) -> do_on(do_a(Config), fun() -> halley:info(Pid) end) end,
    #{uid := 123, transport := chunked, peer := Address, age := Age, pending := 0} = Info(Pid1),
    true = is_integer(Age) andalso Age >= 0 andalso Age < 60,
    #{uid := <<"bob">>} = Info(Pid2),
    ok = gen_tcp:close(One),
    do_eventually(fun() -> Info(Pid1) =:= undefined end),
    [] = do_on(do_a(Config), fun() -> halley:pids(123) end),
    halley_test:do_kill_halley(Halley),
    do_eventually(fun() -> Info(Pid2) =:= undefined end),
    ok = gen_tcp:close(Two).

link_and_monitor(Config) ->
    doc("Links and monitors of a connection tell why it ended; a dead one fires at once; exit/2 ends one."),
    Halley = do_halley(Config),
    [One, Two] = [do_login(Halley, "1") || _ <- [1, 2]],
    A = do_a(Config),
    [Pid1, Pid2] = do_on(A, fun() -> halley:pids(1) end),
    Watcher = do_on(A, fun() ->
        Self = self(),
        Watcher = spawn(fun() ->
            process_flag(trap_exit, true),
            _ = monitor(process, Pid1),
            true = link(Pid1),
            true = link(Pid2),
            %% Answered after Halley has heard of the links.
            [#{uid := 1} = halley:info(Pid) || Pid <- [Pid1, Pid2]],
            Self ! {self(), watches},
            do_keep([])
        end),
        receive
            {Watcher, watches} -> Watcher
        end
    end),
    Kept = fun() -> do_on(A, fun() -> lists:sort([setelement(2, M, x) || M <- do_kept(Watcher)]) end) end,
    ok = gen_tcp:close(One),
    Ended = [{'EXIT', x, normal}, {'DOWN', x, process, Pid1, normal}],
    do_eventually(fun() ->
        case Kept() of
            Ended -> true;
            Other -> Other
        end
    end),
    true = do_on(A, fun() -> exit(Pid2, normal) end),
    ok = do_on(A, fun() -> halley:send(1, <<"still here">>) end),
    <<"still here">> = do_chunk(Two),
    true = do_on(A, fun() -> exit(Pid2, go_away) end),
    do_eventually(fun() -> lists:member({'EXIT', x, go_away}, Kept()) end),
    [<<>>, closed] = do_chunks(Two, 2),
    {noproc, noproc} = do_on(A, fun() ->
        Ref = monitor(process, Pid1),
        process_flag(trap_exit, true),
        true = link(Pid1),
        receive
            {'DOWN', Ref, process, Pid1, Down} ->
                receive
                    {'EXIT', Pid1, Exit} -> {Down, Exit}
                end
        end
    end).

close_by_uid_and_pid(Config) ->
    doc("close/1 ends one connection or all of a uid, cleanly, with the reason kicked."),
    Halley = do_halley(Config),
    Sockets = [One, Two, Three] = [do_login(Halley, "123") || _ <- [1, 2, 3]],
    Reason = do_on(do_a(Config), fun() ->
        [_, Pid2, _] = halley:pids(123),
        Ref = monitor(process, Pid2),
        ok = halley:send(123, <<"good bye">>),
        ok = halley:close(Pid2),
        receive
            {'DOWN', Ref, process, Pid2, Reason} -> Reason
        end
    end),
    kicked = Reason,
    [<<"good bye">>, <<>>, closed] = do_chunks(Two, 3),
    {ok, 2} = do_on(do_a(Config), fun() -> halley:close(123) end),
    [[<<"good bye">>, <<>>, closed] = do_chunks(Socket, 3) || Socket <- [One, Three]],
    do_eventually(fun() -> do_on(do_a(Config), fun() -> halley:close(123) end) =:= {ok, 0} end),
    [gen_tcp:close(Socket) || Socket <- Sockets].

pids_over_two(Config) ->
    doc("pids/1 and close/1 over two Halleys."),
    A = do_a(Config),
    One = do_halley(Config),
    Two = halley_test:do_start_halley(Config, [A]),
    do_eventually(fun() -> length(do_on(A, fun halley:nodes/0)) =:= 2 end),
    Sockets = [do_login(Halley, "123") || Halley <- [One, Two, Two]],
    Nodes = lists:sort([maps:get(node, Halley) || Halley <- [One, Two, Two]]),
    Pids = do_on(A, fun() -> halley:pids(123) end),
    Nodes = lists:sort([node(Pid) || Pid <- Pids]),
    {ok, 3} = do_on(A, fun() -> halley:close(123) end),
    [[<<>>, closed] = do_chunks(Socket, 2) || Socket <- Sockets],
    halley_test:do_stop_halley(Two).

%% Helpers.

do_a(Config) ->
    proplists:get_value(a, Config).

do_fakes(Config) ->
    proplists:get_value(fakes, Config).

do_halley(Config) ->
    proplists:get_value(halley, Config).

do_error(Fun, Args) ->
    try
        {no_error, apply(halley, Fun, Args)}
    catch
        error:Reason -> Reason
    end.

do_answer(Reply) ->
    fun(stats) -> #{}; (_) -> Reply end.

do_answers(Fake, Reply) ->
    ok = do_on(Fake, fun() -> halley_fake:mode(do_answer(Reply)) end).

do_got(Fake, Messages) ->
    do_eventually(fun() -> length(do_on(Fake, fun halley_fake:peek/0)) >= length(Messages) end),
    Messages = do_on(Fake, fun halley_fake:got/0).

%% Every message once, to one of the sockets, and each socket's in order.
do_check_msggen(Sockets, Num) ->
    Texts = [do_until_end(Socket) || Socket <- Sockets],
    Numbers = [[binary_to_integer(N) || <<"Fake message Num = ", N/binary>> <- List] || List <- Texts],
    [List = lists:reverse(lists:sort(List)) || List <- Numbers],
    All = lists:seq(1, Num),
    All = lists:sort(lists:append(Numbers)).

do_until_end(Socket) ->
    case do_chunk(Socket) of
        <<"end">> -> [];
        Chunk -> [Chunk | do_until_end(Socket)]
    end.

do_send_forever() ->
    ok = halley:send(1, <<"tick">>),
    timer:sleep(1),
    do_send_forever().
