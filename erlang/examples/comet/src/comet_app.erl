%% Starts the router and the front.
-module(comet_app).
-behaviour(application).

%% application.
-export([start/2]).
-export([stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    comet_sup:start_link().

-spec stop(term()) -> ok.
stop(_State) ->
    ok.
