%% @doc The message router of "A Million-user Comet Application with Mochiweb".
%%
%% It maps ids to the pids that are logged in under them: an id can have many
%% pids, a pid many ids. A process that serves a browser logs in; whoever has
%% something for an id sends it here, from any node of the cluster. A pid that
%% ends, or whose node goes away, is logged out.
%%
%% It knows pids only, as in the articles. To reach the browsers that Halley
%% holds, call {@link halley:send/2}.
%%
%% The router is linked to every pid that is logged in: those that do not trap
%% exits end with it.
-module(router).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

%% API.
-export([start_link/0]).
-export([login/2]).
-export([logout/1]).
-export([send/2]).

%% gen_server.
-export([init/1]).
-export([handle_call/3]).
-export([handle_cast/2]).
-export([handle_info/2]).

-define(SERVER, {global, ?MODULE}).

%% Both tables hold the same pairs, and belong to the router: a row says that
%% the pid is linked to this very process, so it must not outlive it.
-record(state, {
    pid2id :: ets:table(),
    id2pid :: ets:table()
}).

-type state() :: #state{}.
-type id() :: term().
-export_type([id/0]).

%% API.

%% @doc Start the router of the cluster. There is one: on a second node this
%% answers `{error, {already_started, Pid}}'.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link(?SERVER, ?MODULE, [], []).

%% @doc Log Pid in as Id. From now on it receives `{router_msg, Msg}' for every
%% message to Id.
-spec login(id(), pid()) -> ok.
login(Id, Pid) when is_pid(Pid) ->
    gen_server:call(?SERVER, {login, Id, Pid}).

%% @doc Log Pid out of all its ids.
-spec logout(pid()) -> ok.
logout(Pid) when is_pid(Pid) ->
    gen_server:call(?SERVER, {logout, Pid}).

%% @doc Send Msg to every pid that is logged in as Id. If none is, the message
%% is gone.
-spec send(id(), Msg :: term()) -> ok.
send(Id, Msg) ->
    gen_server:call(?SERVER, {send, Id, Msg}).

%% gen_server.

-spec init([]) -> {ok, state()}.
init([]) ->
    %% The end of a linked pid comes as a message.
    _ = process_flag(trap_exit, true),
    {ok, #state{
        pid2id = ets:new(?MODULE, [bag, private]),
        id2pid = ets:new(?MODULE, [bag, private])
    }}.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, ok | {error, term()}, state()}.
handle_call({login, Id, Pid}, _From, State) when is_pid(Pid) ->
    true = ets:insert(State#state.pid2id, {Pid, Id}),
    true = ets:insert(State#state.id2pid, {Id, Pid}),
    %% For a pid that is dead already, an exit message follows.
    true = link(Pid),
    ?LOG_DEBUG("~tp logged in as ~tp", [Pid, Id]),
    {reply, ok, State};
handle_call({logout, Pid}, _From, State) when is_pid(Pid) ->
    ok = do_logout(Pid, State),
    {reply, ok, State};
handle_call({send, Id, Msg}, _From, State) ->
    lists:foreach(fun({_, Pid}) ->
        Pid ! {router_msg, Msg}
    end, ets:lookup(State#state.id2pid, Id)),
    {reply, ok, State};
handle_call(Request, From, State) ->
    ?LOG_WARNING("router: odd request ~tp from ~tp", [Request, From]),
    {reply, {error, {bad_request, Request}}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(Message, State) ->
    ?LOG_WARNING("router: odd message ~tp", [Message]),
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({'EXIT', Pid, _Reason}, State) when is_pid(Pid) ->
    ok = do_logout(Pid, State),
    {noreply, State};
handle_info(Message, State) ->
    ?LOG_WARNING("router: odd message ~tp", [Message]),
    {noreply, State}.

%% Internal.

%% Only a pid that was logged in is unlinked: the link to the supervisor is
%% not for callers to cut.
-spec do_logout(pid(), state()) -> ok.
do_logout(Pid, #state{pid2id = Pid2Id, id2pid = Id2Pid}) ->
    case ets:take(Pid2Id, Pid) of
        [] ->
            ok;
        Rows ->
            true = unlink(Pid),
            lists:foreach(fun({_, Id}) ->
                true = ets:delete_object(Id2Pid, {Id, Pid})
            end, Rows),
            ?LOG_DEBUG("~tp logged out", [Pid])
    end.
