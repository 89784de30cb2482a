%% The router in the articles' shape: it maps ids to the pids that are logged in under
%% them. An id can have many pids. It is linked to each of them, so it hears when one
%% ends. What a pid is, a process of mochiweb's or a browser at Halley, is nothing to it.
%%
%% The application halley has a module of the same name: of the two, the one that is
%% first in the code path is loaded.
-module(router).
-behaviour(gen_server).

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

-record(state, {
    pid2id :: ets:table(), % bag of {Pid, Id}
    id2pid :: ets:table() % bag of {Id, Pid}
}).

-type id() :: term().
-type state() :: #state{}.

-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link(?SERVER, ?MODULE, [], []).

-spec login(id(), pid()) -> ok.
login(Id, Pid) when is_pid(Pid) ->
    gen_server:call(?SERVER, {login, Id, Pid}).

-spec logout(pid()) -> ok.
logout(Pid) when is_pid(Pid) ->
    gen_server:call(?SERVER, {logout, Pid}).

-spec send(id(), term()) -> ok.
send(Id, Msg) ->
    gen_server:call(?SERVER, {send, Id, Msg}).

-spec init([]) -> {ok, state()}.
init([]) ->
    process_flag(trap_exit, true),
    {ok, #state{
        pid2id = ets:new(?MODULE, [bag]),
        id2pid = ets:new(?MODULE, [bag])
    }}.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, ok, state()}.
handle_call({login, Id, Pid}, _From, State) ->
    ets:insert(State#state.pid2id, {Pid, Id}),
    ets:insert(State#state.id2pid, {Id, Pid}),
    link(Pid),
    {reply, ok, State};
handle_call({logout, Pid}, _From, State) ->
    unlink(Pid),
    forget(Pid, State),
    {reply, ok, State};
handle_call({send, Id, Msg}, _From, State) ->
    [Pid ! {router_msg, Msg} || {_, Pid} <- ets:lookup(State#state.id2pid, Id)],
    {reply, ok, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_Msg, State) ->
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({'EXIT', Pid, _Reason}, State) ->
    forget(Pid, State),
    {noreply, State};
handle_info(_Msg, State) ->
    {noreply, State}.

-spec forget(pid(), state()) -> ok.
forget(Pid, State) ->
    Ids = ets:take(State#state.pid2id, Pid),
    lists:foreach(fun({_, Id}) ->
        ets:delete_object(State#state.id2pid, {Id, Pid})
    end, Ids).
