%% Which Halley nodes are up: first with Erlang nodes that play Halley, well or
%% badly, then with Halley itself.
-module(halley_nodes_SUITE).

-export([all/0]).
-export([groups/0]).
-export([init_per_suite/1]).
-export([end_per_suite/1]).
-export([init_per_group/2]).
-export([end_per_group/2]).
-export([init_per_testcase/2]).
-export([end_per_testcase/2]).

%% fake.
-export([comes_and_goes/1]).
-export([there_before/1]).
-export([several/1]).
-export([silent/1]).
-export([registers_late/1]).
-export([odd_reply/1]).
-export([visible/1]).
-export([other_name/1]).
-export([not_discovered/1]).
-export([configured/1]).
-export([configured_is_visible/1]).
-export([server_crashes/1]).
-export([goes_while_server_is_down/1]).
-export([odd_messages/1]).
-export([bad_options/1]).

%% halley.
-export([halley_comes_goes_and_comes_back/1]).
-export([halley_is_dialled/1]).
-export([halley_beside_other_hidden_node/1]).
-export([halley_twice/1]).

-import(halley_test, [doc/1, do_on/2, do_eventually/1, do_name/1]).

all() ->
    [{group, fake}, {group, halley}].

groups() ->
    [
        {fake, [], [
            comes_and_goes,
            there_before,
            several,
            silent,
            registers_late,
            odd_reply,
            visible,
            other_name,
            not_discovered,
            configured,
            configured_is_visible,
            server_crashes,
            goes_while_server_is_down,
            odd_messages,
            bad_options
        ]},
        {halley, [], [
            halley_comes_goes_and_comes_back,
            halley_is_dialled,
            halley_beside_other_hidden_node,
            halley_twice
        ]}
    ].

init_per_suite(Config) ->
    halley_test:do_start_epmd(Config).

end_per_suite(Config) ->
    halley_test:do_stop_epmd(Config).

init_per_group(halley, Config) ->
    halley_test:do_need_halley(Config);
init_per_group(fake, Config) ->
    Config.

end_per_group(_, _) ->
    ok.

init_per_testcase(_, Config) ->
    [{a, halley_test:do_start_node(Config, do_name("a"), [])} | Config].

end_per_testcase(_, Config) ->
    halley_test:do_stop_node(do_a(Config)).

%% Cases with Erlang nodes.

comes_and_goes(Config) ->
    doc("A hidden node that answers stats with a map is up, until it goes; so again when it is back."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    [] = do_up(A),
    Name = do_name("fake"),
    Fake = {_, Node} = do_start_fake(Config, Name),
    [] = do_up(A),
    do_connect(A, Fake),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    [] = do_on(A, fun() -> erlang:nodes() end),
    halley_test:do_kill_node(Fake),
    do_eventually(fun() -> do_up(A) =:= [] end),
    Again = do_start_fake(Config, Name),
    do_connect(A, Again),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    halley_test:do_stop_node(Again).

there_before(Config) ->
    doc("A node that was connected before the application started is found."),
    A = do_a(Config),
    Fake = {_, Node} = do_start_fake(Config, do_name("fake")),
    do_connect(A, Fake),
    ok = halley_test:do_start_app(A, []),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    halley_test:do_stop_node(Fake).

several(Config) ->
    doc("Several are listed in the order of their names."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    Fakes = [do_start_fake(Config, do_name(Prefix)) || Prefix <- ["z", "a", "m"]],
    [do_connect(A, Fake) || Fake <- Fakes],
    Sorted = lists:sort([Node || {_, Node} <- Fakes]),
    do_eventually(fun() -> do_up(A) =:= Sorted end),
    [halley_test:do_stop_node(Fake) || Fake <- Fakes].

silent(Config) ->
    doc("A node that does not answer is not up, and the server waits for nobody."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    Silent = do_start_fake(Config, do_name("silent"), silent),
    do_connect(A, Silent),
    Fake = {_, Node} = do_start_fake(Config, do_name("fake")),
    do_connect(A, Fake),
    {Us, ok} = timer:tc(fun() -> do_eventually(fun() -> do_up(A) =:= [Node] end) end),
    true = Us < 4000000,
    %% Past the time it had to answer: still the other one only.
    timer:sleep(5500),
    [Node] = do_up(A),
    [halley_test:do_stop_node(Peer) || Peer <- [Silent, Fake]].

registers_late(Config) ->
    doc("A node that serves the name a while after it connected is found then."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    Late = {_, Node} = halley_test:do_start_node(Config, do_name("late"), ["-hidden"]),
    do_connect(A, Late),
    timer:sleep(1000),
    [] = do_up(A),
    ok = do_on(Late, fun() -> halley_fake:start(fun(stats) -> #{} end) end),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    halley_test:do_stop_node(Late).

odd_reply(Config) ->
    doc("A hidden node that answers, but not with a map, is something else."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    Odd = do_start_fake(Config, do_name("odd"), fun(_) -> {error, what} end),
    do_connect(A, Odd),
    timer:sleep(1000),
    [] = do_up(A),
    halley_test:do_stop_node(Odd).

visible(Config) ->
    doc("A visible node is no Halley, whatever it serves."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    Visible = {_, Node} = halley_test:do_start_node(Config, do_name("visible"), []),
    ok = do_on(Visible, fun() -> halley_fake:start(fun(stats) -> #{} end) end),
    do_connect(A, Visible),
    [Node] = do_on(A, fun() -> erlang:nodes() end),
    timer:sleep(500),
    [] = do_up(A),
    halley_test:do_stop_node(Visible).

other_name(Config) ->
    doc("The name that Halley serves can be another one."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, [{register, comet}]),
    Other = {_, Node} = halley_test:do_start_node(Config, do_name("other"), ["-hidden"]),
    ok = do_on(Other, fun() -> halley_fake:start(comet, fun(stats) -> #{} end) end),
    Fake = do_start_fake(Config, do_name("fake")),
    [do_connect(A, Peer) || Peer <- [Other, Fake]],
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    timer:sleep(500),
    [Node] = do_up(A),
    [{comet, Node}] = do_on(A, fun halley_nodes:up/0),
    [halley_test:do_stop_node(Peer) || Peer <- [Other, Fake]].

not_discovered(Config) ->
    doc("With discover off only the configured nodes count."),
    A = do_a(Config),
    Ours = {_, Node} = do_start_fake(Config, do_name("ours")),
    Theirs = do_start_fake(Config, do_name("theirs")),
    ok = halley_test:do_start_app(A, [{discover, false}, {nodes, [Node]}]),
    do_connect(A, Theirs),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    timer:sleep(500),
    [Node] = do_up(A),
    [halley_test:do_stop_node(Peer) || Peer <- [Ours, Theirs]].

configured(Config) ->
    doc("A configured node is connected to when it comes, and again after it was killed."),
    A = do_a(Config),
    Name = do_name("fake"),
    Node = list_to_atom(Name ++ "@localhost"),
    ok = halley_test:do_start_app(A, [{nodes, [Node]}]),
    [] = do_up(A),
    Fake = do_start_fake(Config, Name),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    halley_test:do_kill_node(Fake),
    do_eventually(fun() -> do_up(A) =:= [] end),
    Again = do_start_fake(Config, Name),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    halley_test:do_stop_node(Again).

configured_is_visible(Config) ->
    doc("A visible node that was configured by mistake is not up, and harms nobody."),
    A = do_a(Config),
    Visible = {_, Node} = halley_test:do_start_node(Config, do_name("visible"), []),
    ok = do_on(Visible, fun() -> halley_fake:start(fun(stats) -> #{} end) end),
    Fake = {_, Up} = do_start_fake(Config, do_name("fake")),
    ok = halley_test:do_start_app(A, [{nodes, [Node, Up]}]),
    do_eventually(fun() -> do_up(A) =:= [Up] end),
    do_eventually(fun() -> do_on(A, fun() -> erlang:nodes() end) =:= [Node] end),
    timer:sleep(500),
    [Up] = do_up(A),
    [halley_test:do_stop_node(Peer) || Peer <- [Visible, Fake]].

server_crashes(Config) ->
    doc("A crash of the server goes unnoticed: the table stays, and the new server knows the nodes."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    %% The new server asks again: so slow an answer would show a gap.
    Fake = {_, Node} = do_start_fake(Config, do_name("fake"), fun(stats) -> timer:sleep(300), #{} end),
    do_connect(A, Fake),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    do_on(A, fun() ->
        Server = whereis(halley_nodes),
        true = exit(Server, kill),
        [begin
            [Node] = halley:nodes(),
            timer:sleep(5)
        end || _ <- lists:seq(1, 100)],
        true = is_pid(whereis(halley_nodes)),
        true = whereis(halley_nodes) =/= Server
    end),
    halley_test:do_kill_node(Fake),
    do_eventually(fun() -> do_up(A) =:= [] end).

goes_while_server_is_down(Config) ->
    doc("A node that goes while the server is down is not listed by the next one."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    Fake = {_, Node} = do_start_fake(Config, do_name("fake")),
    do_connect(A, Fake),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    ok = do_on(A, fun() -> supervisor:terminate_child(halley_sup, halley_nodes) end),
    halley_test:do_kill_node(Fake),
    do_eventually(fun() -> do_on(A, fun() -> erlang:nodes(hidden) end) =:= [] end),
    [Node] = do_up(A),
    {ok, _} = do_on(A, fun() -> supervisor:restart_child(halley_sup, halley_nodes) end),
    [] = do_up(A).

odd_messages(Config) ->
    doc("What the server does not understand is logged and does it no harm."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    ok = do_on(A, fun() ->
        Server = whereis(halley_nodes),
        {error, {bad_request, odd}} = gen_server:call(Server, odd),
        ok = gen_server:cast(Server, odd),
        Server ! odd,
        Server ! {timeout, make_ref(), {check, nobody@nowhere}},
        Server ! {{checked, nobody@nowhere}, make_ref(), process, self(), is_halley},
        Server ! {nodedown, nobody@nowhere, []},
        [] = halley:nodes(),
        {error, _} = gen_server:call(Server, odd),
        Server = whereis(halley_nodes),
        ok
    end).

bad_options(Config) ->
    doc("An option that cannot be is refused at the start, by name."),
    [{error, {{bad_option, {Key, Value}}, _}} = do_on(do_a(Config), fun() ->
        _ = application:load(halley),
        {ok, Good} = application:get_env(halley, Key),
        ok = application:set_env(halley, Key, Value),
        Result = application:start(halley),
        ok = application:set_env(halley, Key, Good),
        Result
    end) || {Key, Value} <- [
        {register, "httpd"},
        {nodes, 'halley@localhost'},
        {nodes, ["halley@localhost"]},
        {discover, sometimes},
        {router, 1}
    ]].

%% Cases with Halley.

halley_comes_goes_and_comes_back(Config) ->
    doc("Halley that dials us is up; killed, it is not; started again, it is."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    Halley = #{node := Node, name := Name} = halley_test:do_start_halley(Config, [A]),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    [] = do_on(A, fun() -> erlang:nodes() end),
    halley_test:do_kill_halley(Halley),
    do_eventually(fun() -> do_up(A) =:= [] end),
    halley_test:do_stop_halley(Halley),
    Again = halley_test:do_start_halley(Config, [A], Name),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    halley_test:do_stop_halley(Again).

halley_is_dialled(Config) ->
    doc("Halley that dials nobody is connected to if it is configured, and again after it was killed."),
    A = do_a(Config),
    Name = do_name("halley"),
    Node = list_to_atom(Name ++ "@localhost"),
    ok = halley_test:do_start_app(A, [{nodes, [Node]}]),
    Halley = halley_test:do_start_halley(Config, [], Name),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    halley_test:do_kill_halley(Halley),
    do_eventually(fun() -> do_up(A) =:= [] end),
    halley_test:do_stop_halley(Halley),
    Again = halley_test:do_start_halley(Config, [], Name),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    halley_test:do_stop_halley(Again).

halley_beside_other_hidden_node(Config) ->
    doc("Another hidden node is not taken for Halley."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    Hidden = {_, Other} = halley_test:do_start_node(Config, do_name("hidden"), ["-hidden"]),
    do_connect(A, Hidden),
    Halley = #{node := Node} = halley_test:do_start_halley(Config, [A]),
    do_eventually(fun() -> do_up(A) =:= [Node] end),
    Both = lists:sort([Node, Other]),
    Both = lists:sort(do_on(A, fun() -> erlang:nodes(hidden) end)),
    timer:sleep(1000),
    [Node] = do_up(A),
    halley_test:do_stop_halley(Halley),
    halley_test:do_stop_node(Hidden).

halley_twice(Config) ->
    doc("Two Halley nodes; one goes, the other stays."),
    A = do_a(Config),
    ok = halley_test:do_start_app(A, []),
    One = #{node := Node1} = halley_test:do_start_halley(Config, [A]),
    Two = #{node := Node2} = halley_test:do_start_halley(Config, [A]),
    Both = lists:sort([Node1, Node2]),
    do_eventually(fun() -> do_up(A) =:= Both end),
    halley_test:do_kill_halley(One),
    do_eventually(fun() -> do_up(A) =:= [Node2] end),
    [halley_test:do_stop_halley(Halley) || Halley <- [One, Two]].

%% Helpers.

do_a(Config) ->
    proplists:get_value(a, Config).

do_up(A) ->
    do_on(A, fun halley:nodes/0).

do_connect(A, {_, Node}) ->
    true = do_on(A, fun() -> net_kernel:connect_node(Node) end).

do_start_fake(Config, Name) ->
    do_start_fake(Config, Name, fun(stats) -> #{} end).

do_start_fake(Config, Name, Mode) ->
    Fake = halley_test:do_start_node(Config, Name, ["-hidden"]),
    ok = do_on(Fake, fun() -> halley_fake:start(Mode) end),
    Fake.
