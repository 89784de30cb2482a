%% @private
%% @doc What a router knows of the Halley nodes that tell it who is connected
%% (`--presence'): in which epoch each of them is, and whether something is missing.
%%
%% An epoch begins when Halley and the router find each other, anew when either was
%% away, or when Halley had to stop telling because its queue was full. Everything
%% of an epoch comes in the order it was sent, and a later epoch has the greater
%% number, also over a restart of Halley.
%%
%% A pid tells of its own node only. The mark after all that were there,
%% `{all_present, Epoch, Node}', names it: of a Halley without a single connection
%% it is the first that comes of an epoch, and begins it.
%%
%% A mark of a node that is no Halley is harmless: what it drops are pids of that very
%% node that were told of in an earlier epoch, and there are none; who logged in is not
%% touched. All that stays of it is an entry in info/1, until a node of that name goes down.
-module(router_presence).

-export([new/0]).
-export([nodedown/2]).
-export([enter/3]).
-export([count/3]).
-export([whole/3]).
-export([info/1]).

-type epoch() :: integer().
-type version() :: pos_integer().

-record(halley, {
    epoch :: epoch(),
    %% How many connected and disconnected of this epoch came or were missed. none:
    %% we know nothing of its beginning, as the first that came was for the router
    %% before this one.
    version = none :: non_neg_integer() | none,
    %% Of those, in all epochs, how many did not come.
    missed = 0 :: non_neg_integer(),
    whole = false :: boolean()
}).

-opaque presence() :: #{node() => #halley{}}.
-export_type([presence/0, epoch/0, version/0]).

%% @doc From then on nodedown/2 is called for each node that goes, after all that came from it.
-spec new() -> presence().
new() ->
    #{}.

%% @doc Whether the node told who is connected to it, so that its pids are to be dropped.
-spec nodedown(node(), presence()) -> {boolean(), presence()}.
nodedown(Node, Halleys) ->
    {is_map_key(Node, Halleys), maps:remove(Node, Halleys)}.

%% @doc Node tells something of Epoch. `old': a later epoch has begun, this is not to be
%% heeded.
-spec enter(node(), epoch(), presence()) -> old | {ok, presence()}.
enter(Node, Epoch, Halleys) ->
    case Halleys of
        #{Node := #halley{epoch = Epoch}} -> {ok, Halleys};
        #{Node := #halley{epoch = Later}} when Later > Epoch -> old;
        _ -> {ok, Halleys#{Node => begin_epoch(Epoch, Halleys, Node)}}
    end.

-spec begin_epoch(epoch(), presence(), node()) -> #halley{}.
begin_epoch(Epoch, Halleys, Node) ->
    case Halleys of
        #{Node := Halley} -> Halley#halley{epoch = Epoch, version = 0, whole = false};
        _ -> #halley{epoch = Epoch}
    end.

%% @doc Count what came: a connected, with its version, or a disconnected, which has none.
%% Answers how many before it did not come.
-spec count(node(), version() | none, presence()) -> {Missed :: non_neg_integer(), presence()}.
count(Node, Version, Halleys) ->
    case Halleys of
        #{Node := Halley0} ->
            {Missed, Halley} = count(Version, Halley0),
            {Missed, Halleys#{Node := Halley}};
        _ ->
            {0, Halleys}
    end.

-spec count(version() | none, #halley{}) -> {non_neg_integer(), #halley{}}.
count(none, Halley = #halley{version = none}) ->
    {0, Halley};
count(none, Halley = #halley{version = Version}) ->
    {0, Halley#halley{version = Version + 1}};
count(Version, Halley = #halley{version = none}) ->
    {0, Halley#halley{version = Version}};
count(Version, Halley = #halley{version = Before, missed = Missed}) ->
    New = max(0, Version - Before - 1),
    {New, Halley#halley{version = max(Before, Version), missed = Missed + New}}.

%% @doc The node's epoch has been told to its end, without what was missed.
-spec whole(node(), epoch(), presence()) -> presence().
whole(Node, Epoch, Halleys) ->
    #{Node := Halley = #halley{epoch = Epoch}} = Halleys,
    Halleys#{Node := Halley#halley{whole = true}}.

%% @doc What is known of each node, for whoever asks.
-spec info(presence()) -> #{node() => #{epoch := epoch(), whole := boolean(), missed := non_neg_integer()}}.
info(Halleys) ->
    maps:map(fun(_, #halley{epoch = Epoch, whole = Whole, missed = Missed}) ->
        #{epoch => Epoch, whole => Whole, missed => Missed}
    end, Halleys).
