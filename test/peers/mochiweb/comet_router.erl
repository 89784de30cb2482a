%% Who is connected: the articles' router. A gen_server with two tables, uid to pids
%% and pid to uids, linked to all pids, so that it knows when one ends.
-module(comet_router).
-behaviour(gen_server).

%% API.
-export([start/0]).
-export([login/2]).
-export([logout/1]).
-export([send/2]).
-export([deliver/2]).

%% gen_server.
-export([init/1]).
-export([handle_call/3]).
-export([handle_cast/2]).
-export([handle_info/2]).

-define(SERVER, {global, router}).
-define(PIDS, comet_router_pids). % {Uid, Pid}
-define(UIDS, comet_router_uids). % {Pid, Uid}

-spec start() -> {ok, pid()}.
start() ->
    gen_server:start(?SERVER, ?MODULE, [], []).

-spec login(pos_integer(), pid()) -> ok.
login(Uid, Pid) ->
    gen_server:call(?SERVER, {login, Uid, Pid}, infinity).

-spec logout(pid()) -> ok.
logout(Pid) ->
    gen_server:call(?SERVER, {logout, Pid}, infinity).

%% Through the server, one caller after the other; any connected node may call it.
-spec send(pos_integer(), binary()) -> ok.
send(Uid, Body) ->
    gen_server:call(?SERVER, {send, Uid, Body}, infinity).

%% The same in the caller; on this node only.
-spec deliver(pos_integer(), binary()) -> ok.
deliver(Uid, Body) ->
    lists:foreach(fun({_, Pid}) -> Pid ! {router_msg, Body} end, ets:lookup(?PIDS, Uid)).

init([]) ->
    process_flag(trap_exit, true),
    ?PIDS = ets:new(?PIDS, [bag, named_table, {read_concurrency, true}]),
    ?UIDS = ets:new(?UIDS, [bag, named_table]),
    {ok, none}.

handle_call({login, Uid, Pid}, _From, State) ->
    link(Pid), % of one that is gone, its exit comes at once
    ets:insert(?PIDS, {Uid, Pid}),
    ets:insert(?UIDS, {Pid, Uid}),
    {reply, ok, State};
handle_call({logout, Pid}, _From, State) ->
    unlink(Pid),
    forget(Pid),
    {reply, ok, State};
handle_call({send, Uid, Body}, _From, State) ->
    {reply, deliver(Uid, Body), State}.

handle_cast(_, State) ->
    {noreply, State}.

handle_info({'EXIT', Pid, _Reason}, State) ->
    forget(Pid),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

forget(Pid) ->
    [ets:delete_object(?PIDS, {Uid, Pid}) || {_, Uid} <- ets:lookup(?UIDS, Pid)],
    ets:delete(?UIDS, Pid).
