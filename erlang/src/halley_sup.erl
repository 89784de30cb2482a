%% @private
-module(halley_sup).
-behaviour(supervisor).

%% API.
-export([start_link/0]).

%% supervisor.
-export([init/1]).

%% API.

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% supervisor.

%% one_for_one: the watcher of the nodes and the router know nothing of each
%% other, and what they share with their callers outlives them (the table of the
%% nodes) or ends with them (the router's tables).
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Flags = #{strategy => one_for_one, intensity => 5, period => 10},
    Router = case application:get_env(halley, router, false) of
        true -> [#{id => router, start => {router, start_link, []}}];
        false -> []
    end,
    {ok, {Flags, [#{id => halley_nodes, start => {halley_nodes, start_link, []}} | Router]}}.
