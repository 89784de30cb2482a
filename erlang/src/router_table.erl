%% @private
%% @doc Who is logged in as what: the two tables of the router.
%%
%% Only the router's process writes them; any process of its node reads them, so
%% that a message waits for nobody. They end with the router: a row says that this
%% very process watches the pid, or hears of its end from Halley.
%%
%% The first table is for senders: a row `{Id, Pid}' for each pair. The second has
%% one entry for each pid, and the row `{online, Ids}', which counts the ids.
-module(router_table).

%% Any process of the node.
-export([is_here/0]).
-export([rows/1]).
-export([info/1]).
-export([member/1]).
-export([online/0]).

%% The router.
-export([new/0]).
-export([entry/1]).
-export([store/2]).
-export([drop_node/1]).
-export([drop_stale/2]).
-export([pids/0]).

%% Kept while the table is walked are so many entries, and no more.
-define(PAGE, 1000).

-define(IDS, router_ids).
-define(PIDS, router_pids).

-type watch() :: reference() | {Uid :: router:id(), router_presence:epoch(), router:meta()}.
%% How the router learns that a pid has ended: a monitor, or Halley tells, and has
%% told of it in that epoch. Never both.
-type entry() :: {pid(), watch(), Logins :: #{router:id() => router:meta()}}.
-export_type([entry/0]).

%% Any process of the node. All but the first raise `badarg' where there is no router.

%% @doc Whether the router is on this node.
-spec is_here() -> boolean().
is_here() ->
    ets:whereis(?IDS) =/= undefined.

%% @doc The pids of Id, the one that came last at the end.
-spec rows(router:id()) -> [{router:id(), pid()}].
rows(Id) ->
    ets:lookup(?IDS, Id).

%% @doc The pids of Id with what is known of them. One that ends meanwhile is left out.
-spec info(router:id()) -> [{pid(), router:meta()}].
info(Id) ->
    [{Pid, meta(Id, Entry)} || {_, Pid} <- rows(Id), Entry <- ets:lookup(?PIDS, Pid)].

%% What the pid logged in with goes before what Halley tells.
-spec meta(router:id(), entry()) -> router:meta().
meta(Id, {_, {Id, _, Info}, Logins}) -> maps:merge(Info, maps:get(Id, Logins, #{}));
meta(Id, {_, _, Logins}) -> maps:get(Id, Logins, #{}).

-spec member(router:id()) -> boolean().
member(Id) ->
    ets:member(?IDS, Id).

-spec online() -> non_neg_integer().
online() ->
    ets:lookup_element(?PIDS, online, 2).

%% The router.

%% A bag would compare a new row with all others of its id: with a hundred thousand
%% browsers under one id, each login would cost as many steps. Its entry tells
%% whether a pid has the id already.
-spec new() -> ok.
new() ->
    Options = [named_table, protected, {read_concurrency, true}],
    ?IDS = ets:new(?IDS, [duplicate_bag | Options]),
    ?PIDS = ets:new(?PIDS, [set | Options]),
    true = ets:insert(?PIDS, {online, 0}),
    ok.

-spec entry(pid()) -> entry() | none.
entry(Pid) ->
    case ets:lookup(?PIDS, Pid) of
        [Entry] -> Entry;
        [] -> none
    end.

%% @doc Put New where Old was: the rows for senders follow.
-spec store(Old :: entry() | none, New :: entry() | none) -> ok.
store(Old, New) ->
    Before = ids(Old),
    After = ids(New),
    lists:foreach(fun(Id) -> add(Id, New) end, After -- Before),
    lists:foreach(fun(Id) -> remove(Id, Old) end, Before -- After),
    true = case New of
        none when Old =:= none -> true;
        none -> ets:delete(?PIDS, element(1, Old));
        _ -> ets:insert(?PIDS, New)
    end,
    ok.

-spec ids(entry() | none) -> [router:id()].
ids(none) -> [];
ids({_, {Uid, _, _}, Logins}) when not is_map_key(Uid, Logins) -> [Uid | maps:keys(Logins)];
ids({_, _, Logins}) -> maps:keys(Logins).

-spec add(router:id(), entry()) -> ok.
add(Id, {Pid, _, _}) ->
    ok = count(Id, 1),
    true = ets:insert(?IDS, {Id, Pid}),
    ok.

-spec remove(router:id(), entry()) -> ok.
remove(Id, {Pid, _, _}) ->
    true = ets:delete_object(?IDS, {Id, Pid}),
    count(Id, -1).

%% The first pid of an id brings it online, the last takes it away.
-spec count(router:id(), 1 | -1) -> ok.
count(Id, Step) ->
    _ = member(Id) orelse ets:update_counter(?PIDS, online, Step),
    ok.

%% @doc Drop all pids of a node, and tell how many there were.
-spec drop_node(node()) -> non_neg_integer().
drop_node(Node) ->
    drop([{{'$1', '_', '_'}, [is_on(Node)], ['$_']}]).

%% @doc Drop the pids of a node that Halley told of before Epoch, but not in it.
-spec drop_stale(node(), router_presence:epoch()) -> non_neg_integer().
drop_stale(Node, Epoch) ->
    drop([{{'$1', {'_', '$2', '_'}, '_'}, [is_on(Node), {'<', '$2', Epoch}], ['$_']}]).

-spec is_on(node()) -> tuple().
is_on(Node) ->
    {'=:=', {node, '$1'}, {const, Node}}.

%% A walk through the whole table, a second or two if half a million pids are
%% dropped, in which nobody can log in. Senders do not notice it.
-spec drop(ets:match_spec()) -> non_neg_integer().
drop(Spec) ->
    true = ets:safe_fixtable(?PIDS, true),
    Dropped = drop(ets:select(?PIDS, Spec, ?PAGE), 0),
    true = ets:safe_fixtable(?PIDS, false),
    Dropped.

-spec drop('$end_of_table' | {[entry()], term()}, non_neg_integer()) -> non_neg_integer().
drop('$end_of_table', Dropped) ->
    Dropped;
drop({Entries, Continuation}, Dropped) ->
    lists:foreach(fun(Entry) -> store(Entry, none) end, Entries),
    drop(ets:select(Continuation), Dropped + length(Entries)).

%% @doc How many pids there are.
-spec pids() -> non_neg_integer().
pids() ->
    ets:info(?PIDS, size) - 1.
