%% @doc The message router of "A Million-user Comet Application with Mochiweb",
%% grown up.
%%
%% It maps ids to the pids that are logged in under them: an id can have many
%% pids, a pid many ids. What serves a browser logs in, be it a process, as in the
%% articles, or a connection of Halley's, which is a pid as well; whoever has
%% something for an id sends it here, from any node of the cluster, and each pid of
%% the id gets `{router_msg, Msg}'. A pid that ends, or whose node goes away, is
%% logged out. An id is any term; 1 and `<<"1">>' are two ids.
%%
%% There is one router in the cluster, registered as `{global, router}', and on its
%% own node as `router' too. There a message passes through no process: the sender
%% looks up the pids itself. What one process sends to one id arrives in the order it
%% was sent.
%%
%% == Halley ==
%%
%% Started with `--presence router', Halley tells the router who is connected, and
%% nobody needs to log in: uids are ids. The router believes it: such a pid is
%% dropped when Halley says that it ended, when Halley's node goes away, or when
%% Halley, asked anew, does not name it any more. It needs no monitor, so that
%% the end of a million connections is a million small messages in large writes. With
%% `--login router:login' as well, a pid still gets each message once. With that alone
%% Halley's pids are like those of processes; but as nobody logs them in again at a new
%% router, presence is the better way.
%%
%% == When a process, or the router, ends ==
%%
%% The router monitors those who log in, and is not linked to them: it must not take
%% a million browsers with it when it crashes. Its tables end with it. A new router
%% soon knows Halley's connections again, for Halley sees it come. A process that had
%% logged in is not known to it, and has to log in again; OTP tells it when:
%% ```
%% Ref = erlang:monitor(process, global:whereis_name(router)),
%% receive
%%     {'DOWN', Ref, process, _, _} -> log_in_again
%% end
%% '''
%% A process that would rather end with the router, as in the articles, for its
%% browser to come back, links itself: `link(global:whereis_name(router))'. The same
%% goes for a process on another node when the connection between the two is lost.
-module(router).
-behaviour(gen_server).

-compile({no_auto_import, [whereis/1]}).

-include_lib("kernel/include/logger.hrl").

%% API.
-export([start_link/0]).
-export([login/2]).
-export([login/3]).
-export([logout/1]).
-export([send/2]).
-export([send_many/1]).
-export([whereis/1]).
-export([info/1]).
-export([online/0]).
-export([online/1]).
-export([stats/0]).

%% gen_server.
-export([init/1]).
-export([handle_call/3]).
-export([handle_cast/2]).
-export([handle_info/2]).

-define(SERVER, {global, ?MODULE}).

%% As long as gen_server:call/2 waits.
-define(CALL_MS, 5000).

%% So many messages at a time go to the router's node.
-define(LIST_LENGTH, 1000).

-type id() :: term().
-type meta() :: map().
%% What is known of a pid under an id: anything that it logged in with, and what Halley
%% tells of a connection, `#{transport => chunked}'.
-export_type([id/0, meta/0]).

-type state() :: router_presence:presence().

%% API.

%% @doc Start the router of the cluster. There is one: on a second node this
%% answers `{error, {already_started, Pid}}'.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link(?SERVER, ?MODULE, [], []).

%% @doc Log Pid in as Id. From now on it receives `{router_msg, Msg}' for every
%% message to Id.
-spec login(id(), pid()) -> ok.
login(Id, Pid) ->
    login(Id, Pid, #{}).

%% @doc Log Pid in as Id, with a map that {@link info/1} shows. A pid that logs in
%% again as Id replaces it, and still gets each message once.
-spec login(id(), pid(), meta()) -> ok.
login(Id, Pid, Meta) when is_pid(Pid), is_map(Meta) ->
    gen_server:call(?SERVER, {login, Id, Pid, Meta}).

%% @doc Log Pid out of all ids that it was logged in as. A connection that Halley
%% tells of is still reached by its uid as long as it lives.
-spec logout(pid()) -> ok.
logout(Pid) when is_pid(Pid) ->
    gen_server:call(?SERVER, {logout, Pid}).

%% @doc Send Msg to every pid that is logged in as Id. If none is, the message
%% is gone.
%%
%% On the router's node the caller itself sends, and is suspended if a pid's node
%% does not read fast enough, as with any `!'. From another node this waits
%% until a process on the router's node has done it. Exits if there is no router.
-spec send(id(), Msg :: term()) -> ok.
send(Id, Msg) ->
    try router_table:rows(Id) of
        Rows -> to_pids(Rows, {router_msg, Msg})
    catch
        error:badarg -> at_router(send, [Id, Msg])
    end.

-spec to_pids([{id(), pid()}], {router_msg, term()}) -> ok.
to_pids([], _) ->
    ok;
to_pids([{_, Pid} | Rows], Msg) ->
    _ = Pid ! Msg,
    to_pids(Rows, Msg).

%% @doc Send many messages, in their order. From another node this is many times as
%% fast as one by one.
-spec send_many([{id(), Msg :: term()}]) -> ok.
send_many(Messages) when is_list(Messages) ->
    case router_table:is_here() of
        true -> lists:foreach(fun({Id, Msg}) -> send(Id, Msg) end, Messages);
        false -> send_lists(Messages)
    end.

-spec send_lists([{id(), Msg :: term()}]) -> ok.
send_lists([]) ->
    ok;
send_lists(Messages) ->
    {List, Rest} = split(?LIST_LENGTH, Messages, []),
    ok = at_router(send_many, [List]),
    send_lists(Rest).

-spec split(non_neg_integer(), list(), list()) -> {list(), list()}.
split(N, [Message | Rest], List) when N > 0 -> split(N - 1, Rest, [Message | List]);
split(_, Rest, List) -> {lists:reverse(List), Rest}.

%% @doc The pids that are logged in as Id, the latest at the end.
-spec whereis(id()) -> [pid()].
whereis(Id) ->
    here(fun() -> [Pid || {_, Pid} <- router_table:rows(Id)] end, whereis, [Id]).

%% @doc The same with what is known of each pid.
-spec info(id()) -> [{pid(), meta()}].
info(Id) ->
    here(fun() -> router_table:info(Id) end, info, [Id]).

%% @doc How many ids are online: have a pid that is logged in as them.
-spec online() -> non_neg_integer().
online() ->
    here(fun router_table:online/0, online, []).

%% @doc Whether Id is online.
-spec online(id()) -> boolean().
online(Id) ->
    here(fun() -> router_table:member(Id) end, online, [Id]).

%% @doc How many ids are online and how many pids make them so; of each Halley node that
%% tells who is connected its epoch, whether that was told to the end, and how many
%% comings and goings did not reach the router.
-spec stats() -> #{
    online := non_neg_integer(),
    pids := non_neg_integer(),
    halleys := #{node() => #{epoch := integer(), whole := boolean(), missed := non_neg_integer()}}
}.
stats() ->
    gen_server:call(?SERVER, stats).

%% gen_server.

-spec init([]) -> {ok, state()} | {stop, term()}.
init([]) ->
    %% A process may link itself to the router; its end is none of ours.
    _ = process_flag(trap_exit, true),
    %% Halley tells of a million connections as fast as it can. What waits is not to
    %% be copied with each garbage collection.
    _ = process_flag(message_queue_data, off_heap),
    %% Before we have the name that Halley sends to: so the nodedown of each node that
    %% told us something comes, and comes after all that it sent, which
    %% erlang:monitor_node/2 does not promise.
    ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
    try register(?MODULE, self()) of
        true ->
            ok = router_table:new(),
            {ok, router_presence:new()}
    catch
        error:badarg ->
            {stop, {name_taken, ?MODULE, erlang:whereis(?MODULE)}}
    end.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, term(), state()}.
handle_call({login, Id, Pid, Meta}, _From, State) when is_pid(Pid), is_map(Meta) ->
    ok = do_login(Id, Pid, Meta),
    ?LOG_DEBUG("~tp logged in as ~tp", [Pid, Id]),
    {reply, ok, State};
handle_call({logout, Pid}, _From, State) when is_pid(Pid) ->
    ok = do_logout(router_table:entry(Pid)),
    ?LOG_DEBUG("~tp logged out", [Pid]),
    {reply, ok, State};
handle_call(stats, _From, State) ->
    Stats = #{online => online(), pids => router_table:pids(), halleys => router_presence:info(State)},
    {reply, Stats, State};
handle_call(Request, From, State) ->
    ?LOG_WARNING("router: odd request ~tp from ~tp", [Request, From]),
    {reply, {error, {bad_request, Request}}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(Message, State) ->
    ?LOG_WARNING("router: odd message ~tp", [Message]),
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({connected, Uid, Pid, Info = #{epoch := Epoch, version := Version}}, State) when
        is_pid(Pid), is_integer(Epoch), is_integer(Version), Version > 0 ->
    {noreply, connected(Uid, Pid, Info, State)};
handle_info({disconnected, _Uid, Pid, _Reason}, State) when is_pid(Pid) ->
    ok = do_drop(router_table:entry(Pid)),
    {_, Counted} = router_presence:count(node(Pid), none, State),
    {noreply, Counted};
handle_info({all_present, Epoch, Node}, State) when is_integer(Epoch), is_atom(Node) ->
    {noreply, whole(Node, Epoch, State)};
handle_info({all_present, Epoch, Pairs = [{_, Pid} | _]}, State) when is_integer(Epoch), is_pid(Pid) ->
    {noreply, all_present(node(Pid), Epoch, Pairs, State)};
handle_info({'DOWN', Ref, process, Pid, _Reason}, State) ->
    case router_table:entry(Pid) of
        Entry = {_, Ref, _} -> ok = router_table:store(Entry, none);
        %% Logged in anew after its connection was lost, or known by Halley's word.
        _ -> ok
    end,
    {noreply, State};
handle_info({nodeup, _Node, _Info}, State) ->
    {noreply, State};
handle_info({nodedown, Node, _Info}, State) ->
    {noreply, nodedown(Node, State)};
handle_info({'EXIT', Pid, _Reason}, State) when is_pid(Pid) ->
    {noreply, State};
handle_info(Message, State) ->
    ?LOG_WARNING("router: odd message ~tp", [Message]),
    {noreply, State}.

%% Those who log in.

%% A monitor that is there is replaced: it may have fired already, as the pid's
%% connection was lost, and its message be waiting behind this login.
-spec do_login(id(), pid(), meta()) -> ok.
do_login(Id, Pid, Meta) ->
    case router_table:entry(Pid) of
        none ->
            router_table:store(none, {Pid, erlang:monitor(process, Pid), #{Id => Meta}});
        Entry = {_, Ref, Logins} when is_reference(Ref) ->
            true = erlang:demonitor(Ref),
            router_table:store(Entry, {Pid, erlang:monitor(process, Pid), Logins#{Id => Meta}});
        Entry = {_, Present, Logins} ->
            router_table:store(Entry, {Pid, Present, Logins#{Id => Meta}})
    end.

-spec do_logout(router_table:entry() | none) -> ok.
do_logout(Entry = {Pid, Present, _}) when is_tuple(Present) ->
    router_table:store(Entry, {Pid, Present, #{}});
do_logout(Entry) ->
    do_drop(Entry).

-spec do_drop(router_table:entry() | none) -> ok.
do_drop(none) ->
    ok;
do_drop(Entry = {_, Watch, _}) ->
    _ = is_reference(Watch) andalso erlang:demonitor(Watch),
    router_table:store(Entry, none).

%% Those whom Halley tells of.

-spec connected(id(), pid(), map(), state()) -> state().
connected(Uid, Pid, Info = #{epoch := Epoch, version := Version}, State) ->
    case router_presence:enter(node(Pid), Epoch, State) of
        old ->
            State;
        {ok, Entered} ->
            {Missed, Counted} = router_presence:count(node(Pid), Version, Entered),
            Missed =:= 0 orelse
                ?LOG_WARNING("router: missed ~b messages of ~ts before version ~b of epoch ~b",
                    [Missed, node(Pid), Version, Epoch]),
            ok = present(Uid, Pid, Epoch, maps:without([epoch, version], Info)),
            Counted
    end.

-spec all_present(node(), router_presence:epoch(), [{id(), pid()}], state()) -> state().
all_present(Node, Epoch, Pairs, State) ->
    case router_presence:enter(Node, Epoch, State) of
        old ->
            State;
        {ok, Entered} ->
            ok = presents(Pairs, Node, Epoch),
            Entered
    end.

%% Anybody can send anything to a name: what is odd costs itself only.
-spec presents([{id(), pid()}], node(), router_presence:epoch()) -> ok.
presents([{Uid, Pid} | Pairs], Node, Epoch) when is_pid(Pid), node(Pid) =:= Node ->
    ok = present(Uid, Pid, Epoch, #{}),
    presents(Pairs, Node, Epoch);
presents([], _, _) ->
    ok;
presents([Odd | Pairs], Node, Epoch) ->
    ?LOG_WARNING("router: odd element of all_present, ~tp", [Odd]),
    presents(Pairs, Node, Epoch);
presents(Odd, _, _) ->
    ?LOG_WARNING("router: odd end of all_present, ~tp", [Odd]),
    ok.

-spec present(id(), pid(), router_presence:epoch(), meta()) -> ok.
present(Uid, Pid, Epoch, Info) ->
    case router_table:entry(Pid) of
        none ->
            router_table:store(none, {Pid, {Uid, Epoch, Info}, #{}});
        Entry = {_, Ref, Logins} when is_reference(Ref) ->
            true = erlang:demonitor(Ref),
            router_table:store(Entry, {Pid, {Uid, Epoch, Info}, Logins});
        Entry = {_, {_, _, Before}, Logins} ->
            %% A later epoch names it again, without what was told of it once.
            router_table:store(Entry, {Pid, {Uid, Epoch, maps:merge(Before, Info)}, Logins})
    end.

%% Node has told of all that were there: what it had before, and did not name again, is gone.
-spec whole(node(), router_presence:epoch(), state()) -> state().
whole(Node, Epoch, State) ->
    case router_presence:enter(Node, Epoch, State) of
        old ->
            State;
        {ok, Entered} ->
            Dropped = router_table:drop_stale(Node, Epoch),
            ?LOG_INFO("router: ~ts has told who is connected; ~b others are not any more", [Node, Dropped]),
            router_presence:whole(Node, Epoch, Entered)
    end.

%% The pids of a node that tells nobody who is connected are monitored, each by itself.
-spec nodedown(node(), state()) -> state().
nodedown(Node, State) ->
    case router_presence:nodedown(Node, State) of
        {true, Gone} ->
            Dropped = router_table:drop_node(Node),
            ?LOG_INFO("router: ~ts is down, and ~b pids with it", [Node, Dropped]),
            Gone;
        {false, Gone} ->
            Gone
    end.

%% Reading: here, if the router is here.

-spec here(fun(() -> Result), Function :: atom(), Args :: [term()]) -> Result.
here(Read, Function, Args) ->
    try
        Read()
    catch
        error:badarg -> at_router(Function, Args)
    end.

%% By a process of its own on the router's node, so that nobody waits for those who
%% log in.
-spec at_router(atom(), [term()]) -> term().
at_router(Function, Args) ->
    case global:whereis_name(?MODULE) of
        Router when is_pid(Router), node(Router) =/= node() ->
            try
                erpc:call(node(Router), ?MODULE, Function, Args, ?CALL_MS)
            catch
                error:{erpc, Reason} -> exit({Reason, {?MODULE, Function, Args}});
                exit:{exception, Reason} -> exit(Reason)
            end;
        _ ->
            exit({noproc, {?MODULE, Function, Args}})
    end.
