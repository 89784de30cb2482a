%% @private
%% @doc Options in a map, checked key by key at the door.
-module(halley_options).

-export([check/2]).
-export([bad/3]).

-type rule() :: {Key :: atom(), Default :: term(), Check :: fun((term()) -> boolean()), Expected :: string()}.
%% Expected says what Check wants, in words. A default need not pass it:
%% `undefined' is what an option without a default is when it was not given.
-export_type([rule/0]).

%% @doc The options with the defaults of those that were not given.
-spec check(term(), [rule()]) -> #{atom() => term()}.
check(Options, Rules) when is_map(Options) ->
    Keys = [Key || {Key, _, _, _} <- Rules],
    maps:foreach(fun(Key, Value) ->
        lists:member(Key, Keys) orelse
            bad(Key, Value, lists:flatten(["one of ", lists:join(", ", lists:map(fun atom_to_list/1, Keys))]))
    end, Options),
    maps:from_list([{Key, value(Rule, Options)} || Rule = {Key, _, _, _} <- Rules]);
check(Options, _) ->
    error({bad_options, Options, "a map"}).

-spec value(rule(), map()) -> term().
value({Key, Default, Check, Expected}, Options) ->
    case Options of
        #{Key := Value} -> Check(Value) orelse bad(Key, Value, Expected), Value;
        _ -> Default
    end.

%% @doc The one form of the error.
-spec bad(term(), term(), string()) -> no_return().
bad(Key, Value, Expected) ->
    error({bad_option, Key, Value, Expected}).
