%% The router and the front, each restarted alone: a front that ends leaves the router
%% to the other nodes, and to Halley.
-module(comet_sup).
-behaviour(supervisor).

%% API.
-export([start_link/0]).

%% supervisor.
-export([init/1]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, []) of
        {ok, Pid} -> {ok, Pid};
        ignore -> {error, ignore};
        {error, Reason} -> {error, Reason}
    end.

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Front = [env(ip), env(port), env(max), env(timeout)],
    {ok, {#{strategy => one_for_one}, [
        #{id => router, start => {router, start_link, []}},
        #{id => comet_web, start => {comet_web, start_link, Front}}
    ]}}.

-spec env(atom()) -> term().
env(Key) ->
    {ok, Value} = application:get_env(comet, Key),
    Value.
