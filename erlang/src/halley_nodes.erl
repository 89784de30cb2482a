%% @private
%% @doc Which Halley nodes are up.
%%
%% Halley is a hidden node, so OTP's lists of nodes do not show it. This server
%% watches the hidden nodes and asks each one for Halley's `stats'; those that
%% answer with a map are up until they go. The configured nodes are connected
%% to as well, again and again until they are there.
%%
%% Connecting and asking can take seconds, so each is done by a process of its
%% own, a check: one silent node keeps nobody waiting.
-module(halley_nodes).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

%% API.
-export([start_link/0]).
-export([new_table/0]).
-export([up/0]).
-export([name/0]).

%% gen_server.
-export([init/1]).
-export([handle_call/3]).
-export([handle_cast/2]).
-export([handle_info/2]).

-define(TAB, ?MODULE).

%% How long a node may take to answer `stats'.
-define(ANSWER_MS, 5000).

%% The pause after a check that failed doubles from the first to the second.
-define(MIN_PAUSE_MS, 500).
-define(MAX_PAUSE_MS, 30000).

%% What is under way for a node that is not up: a check, or the pause before
%% the next one. Pause is what the next failure costs.
-record(check, {
    ref :: reference(),
    pause :: pos_integer()
}).
-record(pause, {
    timer :: reference(),
    pause :: pos_integer()
}).

-record(state, {
    name :: atom(),
    %% Connected to by us, and asked; with discover, all other hidden nodes
    %% are asked too.
    wanted :: ordsets:ordset(node()),
    discover :: boolean(),
    up :: ordsets:ordset(node()),
    pending = #{} :: #{node() => #check{} | #pause{}}
}).

-type state() :: #state{}.

%% API.

-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Make the table. It belongs to the caller, and this module's server
%% writes to it: public.
-spec new_table() -> ok.
new_table() ->
    ?TAB = ets:new(?TAB, [named_table, public, {read_concurrency, true}]),
    true = ets:insert(?TAB, {up, []}),
    ok.

%% @doc Where to send for the Halley nodes that are up, in the order of their
%% names. Read by the caller itself: a send passes through no process.
-spec up() -> [{Name :: atom(), node()}].
up() ->
    try
        ets:lookup_element(?TAB, up, 2)
    catch
        error:badarg -> error({not_started, halley})
    end.

%% @doc The name that Halley nodes serve.
-spec name() -> atom().
name() ->
    application:get_env(halley, register, httpd).

%% gen_server.

-spec init([]) -> {ok, state()}.
init([]) ->
    ok = net_kernel:monitor_nodes(true, [{node_type, hidden}]),
    Hidden = erlang:nodes(hidden),
    Wanted = ordsets:from_list(application:get_env(halley, nodes, [])),
    Discover = application:get_env(halley, discover, true),
    %% After a crash the table still tells who was up. Those that are connected
    %% stay, and are asked again below.
    Before = ordsets:from_list([Node || {_, Node} <- up()]),
    State = publish(ordsets:intersection(Before, ordsets:from_list(Hidden)), #state{
        name = name(),
        wanted = Wanted,
        discover = Discover,
        up = Before
    }),
    {ok, lists:foldl(fun(Node, Acc) -> check(Node, ?MIN_PAUSE_MS, Acc) end, State,
        [Node || Node <- ordsets:union(Wanted, ordsets:from_list(Hidden)), is_ours(Node, State)])}.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, {error, term()}, state()}.
handle_call(Request, From, State) ->
    ?LOG_WARNING("halley_nodes: odd request ~tp from ~tp", [Request, From]),
    {reply, {error, {bad_request, Request}}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(Message, State) ->
    ?LOG_WARNING("halley_nodes: odd message ~tp", [Message]),
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({nodeup, Node, _}, State) ->
    case is_ours(Node, State) of
        true -> {noreply, check(Node, ?MIN_PAUSE_MS, State)};
        false -> {noreply, State}
    end;
handle_info({nodedown, Node, _}, State0) ->
    %% A check that is still under way speaks of a connection that is gone.
    State = remove(Node, forget(Node, State0)),
    case is_wanted(Node, State) of
        true -> {noreply, pause(Node, ?MIN_PAUSE_MS, State)};
        false -> {noreply, State}
    end;
handle_info({{checked, Node}, Ref, process, _, Result}, State = #state{pending = Pending}) ->
    case Pending of
        #{Node := #check{ref = Ref, pause = Pause}} ->
            {noreply, checked(Node, Result, Pause, State#state{pending = maps:remove(Node, Pending)})};
        _ ->
            {noreply, State}
    end;
handle_info({timeout, Timer, {check, Node}}, State = #state{pending = Pending}) ->
    case Pending of
        #{Node := #pause{timer = Timer, pause = Pause}} ->
            {noreply, check(Node, Pause, State)};
        _ ->
            {noreply, State}
    end;
handle_info(Message, State) ->
    ?LOG_WARNING("halley_nodes: odd message ~tp", [Message]),
    {noreply, State}.

%% Checks.

%% A nodeup that the check itself brought about finds it under way: that check
%% goes on to ask, so it stands.
-spec check(node(), pos_integer(), state()) -> state().
check(Node, Pause, State0) ->
    case State0#state.pending of
        #{Node := #check{}} ->
            State0;
        _ ->
            State = #state{name = Name, pending = Pending} = forget(Node, State0),
            Wanted = is_wanted(Node, State),
            {_, Ref} = spawn_opt(fun() -> exit(ask(Wanted, {Name, Node})) end,
                [{monitor, [{tag, {checked, Node}}]}]),
            State#state{pending = Pending#{Node => #check{ref = Ref, pause = Pause}}}
    end.

-spec ask(boolean(), {atom(), node()}) -> is_halley | (Why :: term()).
ask(Wanted, Dest = {_, Node}) ->
    Connected = Wanted andalso net_kernel:connect_node(Node) =:= true,
    case is_hidden(Node) of
        true -> ask(Dest);
        %% A visible node was configured by mistake: it cannot be Halley.
        false when Connected -> not_hidden;
        false -> not_connected
    end.

-spec ask({atom(), node()}) -> is_halley | (Why :: term()).
ask(Dest) ->
    try gen_server:call(Dest, stats, ?ANSWER_MS) of
        Stats when is_map(Stats) -> is_halley;
        Reply -> {bad_reply, Reply}
    catch
        exit:{Reason, _} -> Reason
    end.

-spec checked(node(), term(), pos_integer(), state()) -> state().
checked(Node, is_halley, _, State) ->
    add(Node, State);
checked(Node, Why, Pause, State0) ->
    State = remove(Node, State0),
    Wanted = is_wanted(Node, State),
    %% Once per outage, and not for hidden nodes that nobody called Halley.
    _ = case Pause of
        ?MIN_PAUSE_MS when Wanted ->
            ?LOG_WARNING("halley: ~ts does not answer (~tp), trying on", [Node, Why]);
        _ ->
            ok
    end,
    case Wanted orelse is_hidden(Node) of
        true -> pause(Node, Pause, State);
        false -> State
    end.

%% A little at random, so that many nodes do not come at once to a Halley that
%% was restarted.
-spec pause(node(), pos_integer(), state()) -> state().
pause(Node, Pause, State = #state{pending = Pending}) ->
    Timer = erlang:start_timer(Pause + rand:uniform(Pause div 4), self(), {check, Node}),
    Next = min(Pause * 2, ?MAX_PAUSE_MS),
    State#state{pending = Pending#{Node => #pause{timer = Timer, pause = Next}}}.

-spec forget(node(), state()) -> state().
forget(Node, State = #state{pending = Pending0}) ->
    case maps:take(Node, Pending0) of
        {#check{ref = Ref}, Pending} ->
            true = erlang:demonitor(Ref, [flush]),
            State#state{pending = Pending};
        {#pause{timer = Timer}, Pending} ->
            _ = erlang:cancel_timer(Timer),
            State#state{pending = Pending};
        error ->
            State
    end.

%% The table.

-spec add(node(), state()) -> state().
add(Node, State = #state{up = Up}) ->
    case ordsets:is_element(Node, Up) of
        true ->
            State;
        false ->
            ?LOG_NOTICE("halley: ~ts is up", [Node]),
            publish(ordsets:add_element(Node, Up), State)
    end.

-spec remove(node(), state()) -> state().
remove(Node, State = #state{up = Up}) ->
    case ordsets:is_element(Node, Up) of
        true ->
            ?LOG_NOTICE("halley: ~ts is down", [Node]),
            publish(ordsets:del_element(Node, Up), State);
        false ->
            State
    end.

-spec publish(ordsets:ordset(node()), state()) -> state().
publish(Up, State = #state{name = Name}) ->
    true = ets:insert(?TAB, {up, [{Name, Node} || Node <- Up]}),
    State#state{up = Up}.

%% Nodes.

-spec is_ours(node(), state()) -> boolean().
is_ours(Node, State = #state{discover = Discover}) ->
    Discover orelse is_wanted(Node, State).

-spec is_wanted(node(), state()) -> boolean().
is_wanted(Node, #state{wanted = Wanted}) ->
    ordsets:is_element(Node, Wanted).

-spec is_hidden(node()) -> boolean().
is_hidden(Node) ->
    lists:member(Node, erlang:nodes(hidden)).
