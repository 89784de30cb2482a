%% @private
-module(halley_app).
-behaviour(application).

%% application.
-export([start/2]).
-export([stop/1]).

%% application.

%% The table of the nodes that are up is made here and not by halley_nodes,
%% which fills it: a crash of that process then loses nothing, and senders
%% do not notice it.
-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    case [Option || Option <- application:get_all_env(halley), not is_good(Option)] of
        [] ->
            ok = halley_nodes:new_table(),
            halley_sup:start_link();
        [Bad | _] ->
            {error, {bad_option, Bad}}
    end.

-spec stop(term()) -> ok.
stop(_State) ->
    ok.

%% Keys that are not ours are somebody else's: OTP itself adds
%% `included_applications', for one.
-spec is_good({atom(), term()}) -> boolean().
is_good({register, Name}) -> is_atom(Name);
is_good({nodes, Nodes}) -> is_list(Nodes) andalso lists:all(fun is_atom/1, Nodes);
is_good({discover, Discover}) -> is_boolean(Discover);
is_good({router, Router}) -> is_boolean(Router);
is_good(_) -> true.
