%% The router beside a model of it, a map, through some thousands of random steps:
%% logins, logouts, processes that end, Halleys that come, tell, fail to tell, go.
%%
%% A case prints its seed; HALLEY_SEED runs one with that seed again.
-module(router_model_SUITE).

-export([all/0]).
-export([init_per_suite/1]).
-export([end_per_suite/1]).

-export([few_ids/1]).
-export([one_halley/1]).
-export([three_halleys/1]).

-import(halley_test, [doc/1, do_eventually/1]).

-define(STEPS, 3000).

%% Among them some that a table with another idea of equality would confuse.
-define(IDS, [1, 1.0, <<"1">>, 2, bob, {a, tuple}, <<"bob">>, 3]).

%% The model. Its pids are processes of this node, which log in, and pids of nodes
%% that are not there: only what Halley tells can make them known.
-record(model, {
    ids :: [router:id()],
    %% What the router is to know.
    logins = #{} :: #{pid() => #{router:id() => router:meta()}},
    present = #{} :: #{pid() => {Uid :: router:id(), Epoch :: integer(), Info :: map()}},
    %% The epoch that it is in, and how much it missed.
    halleys = #{} :: #{node() => {Epoch :: integer(), Seen :: integer() | none, Missed :: integer()}},
    %% What is so, whether or not the router was told.
    up = #{} :: #{node() => {Epoch :: integer(), Version :: integer()}},
    connections = #{} :: #{pid() => Uid :: router:id()},
    %% What the processes of this node are to have got, newest first.
    got = #{} :: #{pid() => [integer()]},
    next = 1 :: pos_integer()
}).

all() ->
    [few_ids, one_halley, three_halleys].

init_per_suite(Config) ->
    %% This node is not distributed: what is sent to other nodes' pids is gone at once.
    nonode@nohost = node(),
    Config.

end_per_suite(_) ->
    ok.

%% Cases.

few_ids(_) ->
    doc("Processes only: logins, logouts, ends and messages."),
    do_run([], [1, 1.0]).

one_halley(_) ->
    doc("One Halley beside them."),
    do_run(['one@nowhere'], ?IDS).

three_halleys(_) ->
    doc("Three Halleys: an epoch of one, also an empty one, is no other's."),
    do_run(['one@nowhere', 'two@nowhere', 'three@nowhere'], ?IDS).

do_run(Nodes, Ids) ->
    Seed = case os:getenv("HALLEY_SEED") of
        false -> erlang:unique_integer([positive]) bxor erlang:system_time();
        Text -> list_to_integer(Text)
    end,
    ct:pal("HALLEY_SEED=~b", [Seed]),
    _ = rand:seed(exsss, Seed),
    {ok, Router} = router:start_link(),
    Model = lists:foldl(fun(N, Model0) ->
        {Step, Model} = do_step(Router, Nodes, Model0),
        try
            do_check(Router, Model)
        catch
            Class:Reason:Stack ->
                erlang:raise(Class, {Reason, [{seed, Seed}, {step, N, Step}, {model, Model}]}, Stack)
        end,
        Model
    end, #model{ids = Ids}, lists:seq(1, ?STEPS)),
    do_check_got(Model),
    ok = gen_server:stop(Router),
    [exit(Pid, kill) || Pid <- maps:keys(Model#model.got)],
    ok.

%% Steps: what is done, and what is to become of it.

do_step(Router, Nodes, Model) ->
    Step = do_pick(do_weighted(Nodes)),
    {Step, do_step(Step, Router, Nodes, Model)}.

do_weighted([]) ->
    do_times([{8, login}, {4, login_again}, {4, logout}, {4, 'end'}, {8, send}, {1, login_dead}]);
do_weighted(_) ->
    do_weighted([]) ++ do_times([{12, connect}, {8, disconnect}, {2, connect_untold}, {2, disconnect_untold},
        {4, login_connection}, {2, epoch}, {1, emptied}, {1, old_epoch}, {1, nodeup}, {1, nodedown}, {1, lost}]).

do_times(Weights) ->
    lists:append([lists:duplicate(N, What) || {N, What} <- Weights]).

do_step(login, _, _, Model) ->
    Pid = spawn(fun() -> do_browser([]) end),
    do_login(Pid, Model#model{got = (Model#model.got)#{Pid => []}});
do_step(login_again, _, _, Model = #model{got = Got}) ->
    do_some(maps:keys(Got), fun(Pid) -> do_login(Pid, Model) end, Model);
do_step(login_dead, _, _, Model) ->
    {Pid, Ref} = spawn_monitor(fun() -> ok end),
    receive
        {'DOWN', Ref, process, Pid, _} -> ok
    end,
    %% It is there until its DOWN is handled.
    ok = router:login(do_pick(Model#model.ids), Pid),
    do_settle(Pid, Model);
do_step(logout, _, _, Model = #model{logins = Logins, connections = Connections}) ->
    do_some(maps:keys(Logins) ++ maps:keys(Connections), fun(Pid) ->
        ok = router:logout(Pid),
        Model#model{logins = maps:remove(Pid, Logins)}
    end, Model);
do_step('end', _, _, Model = #model{got = Got, logins = Logins}) ->
    do_some(maps:keys(Got), fun(Pid) ->
        true = do_got(Pid) =:= maps:get(Pid, Got),
        true = exit(Pid, kill),
        do_settle(Pid, Model#model{got = maps:remove(Pid, Got), logins = maps:remove(Pid, Logins)})
    end, Model);
do_step(send, _, _, Model = #model{got = Got, logins = Logins, next = N}) ->
    Id = do_pick(Model#model.ids),
    ok = case do_pick([one, many]) of
        one -> router:send(Id, N);
        many -> router:send_many([{Id, N}])
    end,
    Model#model{next = N + 1, got = maps:map(fun(Pid, Messages) ->
        case Logins of
            #{Pid := #{Id := _}} -> [N | Messages];
            _ -> Messages
        end
    end, Got)};
do_step(connect, Router, Nodes, Model0) ->
    do_connect(fun(Uid, Pid, Epoch, Version, Model) ->
        Router ! {connected, Uid, Pid, #{epoch => Epoch, version => Version, transport => chunked}},
        do_connected(Uid, Pid, Epoch, Version, Model)
    end, Nodes, Model0);
do_step(connect_untold, _, Nodes, Model0) ->
    do_connect(fun(_, _, _, _, Model) -> Model end, Nodes, Model0);
do_step(disconnect, Router, _, Model0) ->
    do_disconnect(fun(Uid, Pid, Model) ->
        Router ! {disconnected, Uid, Pid, do_pick([normal, kicked, {tcp, reset}])},
        do_seen(node(Pid), none, do_forget(fun(P) -> P =:= Pid end, Model))
    end, Model0);
do_step(disconnect_untold, _, _, Model0) ->
    do_disconnect(fun(_, _, Model) -> Model end, Model0);
do_step(login_connection, _, _, Model = #model{connections = Connections, present = Present}) ->
    do_some(maps:keys(Connections), fun
        (Pid) when is_map_key(Pid, Present) ->
            do_login(Pid, Model);
        (Pid) ->
            %% The router's monitor fires, as there is no such node.
            ok = router:login(do_pick(Model#model.ids), Pid),
            do_settle(Pid, Model)
    end, Model);
do_step(epoch, Router, _, Model) ->
    do_some(maps:keys(Model#model.up), fun(Node) -> do_epoch(Router, Node, Model) end, Model);
do_step(emptied, Router, _, Model = #model{up = Up, connections = Connections}) ->
    %% So much ends at once that Halley cannot tell it, but begins anew.
    do_some(maps:keys(Up), fun(Node) ->
        Others = maps:filter(fun(Pid, _) -> node(Pid) =/= Node end, Connections),
        do_epoch(Router, Node, Model#model{connections = Others})
    end, Model);
do_step(old_epoch, Router, _, Model = #model{halleys = Halleys}) ->
    do_some(maps:to_list(Halleys), fun({Node, {Epoch, _, _}}) ->
        Uid = do_pick(Model#model.ids),
        Router ! {all_present, Epoch - 1, [{Uid, do_pid(Node, 1)}]},
        Router ! {connected, Uid, do_pid(Node, 1), #{epoch => Epoch - 1, version => 1}},
        Router ! {all_present, Epoch - 1, Node},
        Model
    end, Model);
do_step(nodeup, Router, Nodes, Model = #model{up = Up}) ->
    do_some(Nodes -- maps:keys(Up), fun(Node) ->
        Router ! {nodeup, Node, [{node_type, hidden}]},
        do_epoch(Router, Node, Model#model{up = Up#{Node => {0, 0}}})
    end, Model);
do_step(nodedown, Router, _, Model = #model{up = Up, connections = Connections}) ->
    do_some(maps:keys(Up), fun(Node) ->
        Alive = maps:filter(fun(Pid, _) -> node(Pid) =/= Node end, Connections),
        do_lose(Router, Node, Model#model{connections = Alive})
    end, Model);
do_step(lost, Router, _, Model = #model{up = Up}) ->
    %% The connections outlive it, and are told of when the node is back.
    do_some(maps:keys(Up), fun(Node) -> do_lose(Router, Node, Model) end, Model).

do_login(Pid, Model = #model{logins = Logins, next = N}) ->
    Id = do_pick(Model#model.ids),
    Meta = do_pick([#{}, #{n => N}]),
    ok = router:login(Id, Pid, Meta),
    Of = maps:get(Pid, Logins, #{}),
    Model#model{logins = Logins#{Pid => Of#{Id => Meta}}, next = N + 1}.

do_connect(Tell, Nodes, Model = #model{up = Up, connections = Connections, next = N}) ->
    do_some([Node || Node <- Nodes, is_map_key(Node, Up)], fun(Node) ->
        #{Node := {Epoch, Version}} = Up,
        Pid = do_pid(Node, N + 1),
        Uid = do_pick(Model#model.ids),
        Tell(Uid, Pid, Epoch, Version + 1, Model#model{
            up = Up#{Node := {Epoch, Version + 1}},
            connections = Connections#{Pid => Uid},
            next = N + 1
        })
    end, Model).

do_disconnect(Tell, Model = #model{up = Up, connections = Connections}) ->
    do_some([Pid || Pid <- maps:keys(Connections), is_map_key(node(Pid), Up)], fun(Pid) ->
        Node = node(Pid),
        #{Node := {Epoch, Version}} = Up,
        Tell(maps:get(Pid, Connections), Pid, Model#model{
            up = Up#{Node := {Epoch, Version + 1}},
            connections = maps:remove(Pid, Connections)
        })
    end, Model).

%% An epoch of the node's connections, in pages of three, with one that comes in between.
do_epoch(Router, Node, Model0 = #model{up = Up0, next = N}) ->
    Epoch = N + 1000,
    Pairs = [{Uid, Pid} || {Pid, Uid} <- maps:to_list(Model0#model.connections), node(Pid) =:= Node],
    Model1 = do_pages(Router, Node, Epoch, Pairs,
        Model0#model{up = Up0#{Node := {Epoch, 0}}, next = N + 1}),
    Model2 = case do_pick([true, false]) of
        true -> do_step(connect, Router, [Node], Model1);
        false -> Model1
    end,
    Router ! {all_present, Epoch, Node},
    do_whole(Node, Epoch, do_entered(Node, Epoch, Model2)).

do_pages(_, _, _, [], Model) ->
    Model;
do_pages(Router, Node, Epoch, Pairs, Model) ->
    {Now, Later} = lists:split(min(3, length(Pairs)), Pairs),
    Router ! {all_present, Epoch, Now},
    do_pages(Router, Node, Epoch, Later, lists:foldl(fun({Uid, Pid}, Acc = #model{present = Present}) ->
        Info = case Present of
            #{Pid := {_, _, Before}} -> Before;
            _ -> #{}
        end,
        do_entered(Node, Epoch, Acc#model{present = Present#{Pid => {Uid, Epoch, Info}}})
    end, Model, Now)).

do_connected(Uid, Pid, Epoch, Version, Model = #model{present = Present}) ->
    Known = Model#model{present = Present#{Pid => {Uid, Epoch, #{transport => chunked}}}},
    do_seen(node(Pid), Version, do_entered(node(Pid), Epoch, Known)).

do_entered(Node, Epoch, Model = #model{halleys = Halleys}) ->
    Halley = case Halleys of
        #{Node := {Epoch, _, _} = Same} -> Same;
        #{Node := {_, _, Missed}} -> {Epoch, 0, Missed};
        _ -> {Epoch, none, 0}
    end,
    Model#model{halleys = Halleys#{Node => Halley}}.

do_seen(Node, Version, Model = #model{halleys = Halleys}) ->
    case Halleys of
        #{Node := {Epoch, none, Missed}} ->
            Model#model{halleys = Halleys#{Node := {Epoch, Version, Missed}}};
        #{Node := {Epoch, Seen, Missed}} when Version =:= none ->
            Model#model{halleys = Halleys#{Node := {Epoch, Seen + 1, Missed}}};
        #{Node := {Epoch, Seen, Missed}} ->
            Model#model{halleys = Halleys#{Node := {Epoch, Version, Missed + Version - Seen - 1}}};
        _ ->
            Model
    end.

do_whole(Node, Epoch, Model = #model{present = Present}) ->
    do_forget(fun(Pid) ->
        case Present of
            #{Pid := {_, Of, _}} -> node(Pid) =:= Node andalso Of < Epoch;
            _ -> false
        end
    end, Model).

do_lose(Router, Node, Model = #model{up = Up, halleys = Halleys}) ->
    Router ! {nodedown, Node, [{node_type, hidden}]},
    do_forget(fun(Pid) -> node(Pid) =:= Node end,
        Model#model{up = maps:remove(Node, Up), halleys = maps:remove(Node, Halleys)}).

do_forget(IsGone, Model = #model{present = Present, logins = Logins}) ->
    Stays = fun(Pid, _) -> not IsGone(Pid) end,
    Model#model{present = maps:filter(Stays, Present), logins = maps:filter(Stays, Logins)}.

%% Until the router has handled the end of Pid.
do_settle(Pid, Model) ->
    ok = do_eventually(fun() -> router_table:entry(Pid) =:= none end),
    Model.

%% Checks.

do_check(Router, Model = #model{ids = Ids, logins = Logins, present = Present}) ->
    %% Behind all that was sent to it.
    #{online := Online, pids := Count, halleys := Halleys} = router:stats(),
    Known = do_known(Model),
    [begin
        Want = lists:sort([{Pid, Meta} || {{I, Pid}, Meta} <- maps:to_list(Known), I =:= Id]),
        {Id, Want} = {Id, lists:sort(router:info(Id))},
        {Id, Pids} = {Id, lists:sort(router:whereis(Id))},
        Pids = [Pid || {Pid, _} <- Want],
        Is = Want =/= [],
        {Id, Is} = {Id, router:online(Id)}
    end || Id <- Ids],
    Online = length([Id || Id <- Ids, router:online(Id)]),
    Online = router:online(),
    Pids = maps:keys(maps:merge(Logins, Present)),
    Count = length(Pids),
    Halleys1 = maps:map(fun(_, #{epoch := Epoch, missed := Missed}) -> {Epoch, Missed} end, Halleys),
    Halleys1 = maps:map(fun(_, {Epoch, _, Missed}) -> {Epoch, Missed} end, Model#model.halleys),
    {monitors, Monitors} = process_info(Router, monitors),
    true = lists:sort([Pid || {process, Pid} <- Monitors]) =:=
        lists:sort([Pid || Pid <- maps:keys(Logins), not is_map_key(Pid, Present)]).

%% {Id, Pid} => Meta.
do_known(#model{logins = Logins, present = Present}) ->
    Told = maps:from_list([{{Uid, Pid}, Info} || {Pid, {Uid, _, Info}} <- maps:to_list(Present)]),
    maps:fold(fun(Pid, Of, Acc0) ->
        maps:fold(fun(Id, Meta, Acc) ->
            maps:update_with({Id, Pid}, fun(Info) -> maps:merge(Info, Meta) end, Meta, Acc)
        end, Acc0, Of)
    end, Told, Logins).

do_check_got(#model{got = Got}) ->
    maps:foreach(fun(Pid, Messages) -> {Pid, Messages} = {Pid, do_got(Pid)} end, Got).

%% Helpers.

do_pick(List) ->
    lists:nth(rand:uniform(length(List)), List).

do_some([], _, Model) -> Model;
do_some(List, Fun, _) -> Fun(do_pick(List)).

do_pid(Node, N) ->
    Name = atom_to_binary(Node),
    binary_to_term(<<131, 88, 119, (byte_size(Name)), Name/binary, N:32, 1:32, 1:32>>).

do_browser(Got) ->
    receive
        {router_msg, Msg} ->
            do_browser([Msg | Got]);
        {got, From} ->
            From ! {self(), Got},
            do_browser(Got)
    end.

do_got(Pid) ->
    Pid ! {got, self()},
    receive
        {Pid, Got} -> Got
    after 10000 ->
        error({no_answer, Pid})
    end.
