%% @private
%% @doc What a router knows of the Halley nodes that tell it who is connected
%% (`--presence'): in which epoch each of them is, and whether something is missing.
%%
%% An epoch begins when Halley and the router find each other, anew when either was
%% away, or when Halley had to stop telling because its queue was full. Everything
%% of an epoch comes in the order it was sent, and a later epoch has the greater
%% number, also over a restart of Halley.
%%
%% The mark at an epoch's end, `{all_present, Epoch, []}', does not say whose it is.
%% The batches before it did, or a `connected'. Of a node without a single
%% connection the mark is all that comes: it is that of the one hidden node that
%% there is; if there are several, it is remembered until one of them is heard of
%% in that epoch. Until then the pids of its earlier epoch stay.
-module(router_presence).

-export([new/1]).
-export([nodeup/2]).
-export([nodedown/2]).
-export([enter/3]).
-export([count/3]).
-export([whose/2]).
-export([whole/3]).
-export([info/1]).

%% Marks that wait for their node. One for each Halley is all that can be.
-define(MAX_MARKS, 16).

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

-record(presence, {
    hidden :: ordsets:ordset(node()),
    halleys = #{} :: #{node() => #halley{}},
    marks = [] :: [epoch()]
}).

-opaque presence() :: #presence{}.
-export_type([presence/0, epoch/0, version/0]).

%% @doc Hidden are the hidden nodes that are connected. From then on nodeup/2 and
%% nodedown/2 are called, in their order with what comes from those nodes.
-spec new(Hidden :: [node()]) -> presence().
new(Hidden) ->
    #presence{hidden = ordsets:from_list(Hidden)}.

-spec nodeup(node(), presence()) -> presence().
nodeup(Node, Presence = #presence{hidden = Hidden}) ->
    Presence#presence{hidden = ordsets:add_element(Node, Hidden)}.

%% @doc Whether the node told who is connected to it, so that its pids are to be dropped.
-spec nodedown(node(), presence()) -> {boolean(), presence()}.
nodedown(Node, Presence = #presence{hidden = Hidden, halleys = Halleys}) ->
    {is_map_key(Node, Halleys), Presence#presence{
        hidden = ordsets:del_element(Node, Hidden),
        halleys = maps:remove(Node, Halleys)
    }}.

%% @doc Node tells something of Epoch. `old': a later epoch has begun, this is not to be
%% heeded. `whole': the epoch's end was marked before we knew whose it is.
-spec enter(node(), epoch(), presence()) -> old | {ok | whole, presence()}.
enter(Node, Epoch, Presence = #presence{halleys = Halleys, marks = Marks}) ->
    case Halleys of
        #{Node := #halley{epoch = Epoch}} ->
            {ok, Presence};
        #{Node := #halley{epoch = Later}} when Later > Epoch ->
            old;
        _ ->
            Halley = begin_epoch(Epoch, Halleys, Node),
            Entered = Presence#presence{halleys = Halleys#{Node => Halley}, marks = lists:delete(Epoch, Marks)},
            case lists:member(Epoch, Marks) of
                true -> {whole, Entered};
                false -> {ok, Entered}
            end
    end.

-spec begin_epoch(epoch(), #{node() => #halley{}}, node()) -> #halley{}.
begin_epoch(Epoch, Halleys, Node) ->
    case Halleys of
        #{Node := Halley} -> Halley#halley{epoch = Epoch, version = 0, whole = false};
        _ -> #halley{epoch = Epoch}
    end.

%% @doc Count what came: a connected, with its version, or a disconnected, which has none.
%% Answers how many before it did not come.
-spec count(node(), version() | none, presence()) -> {Missed :: non_neg_integer(), presence()}.
count(Node, Version, Presence = #presence{halleys = Halleys}) ->
    case Halleys of
        #{Node := Halley0} ->
            {Missed, Halley} = count(Version, Halley0),
            {Missed, Presence#presence{halleys = Halleys#{Node := Halley}}};
        _ ->
            {0, Presence}
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

%% @doc Whose epoch the mark ends.
-spec whose(epoch(), presence()) -> {[node()], presence()}.
whose(Epoch, Presence = #presence{hidden = Hidden, halleys = Halleys, marks = Marks}) ->
    case {[Node || {Node, #halley{epoch = E}} <- maps:to_list(Halleys), E =:= Epoch], Hidden} of
        {[], [Node]} ->
            case enter(Node, Epoch, Presence) of
                old -> {[], Presence};
                {_, Entered} -> {[Node], Entered}
            end;
        {[], _} ->
            {[], Presence#presence{marks = lists:sublist([Epoch | Marks], ?MAX_MARKS)}};
        {Nodes, _} ->
            {Nodes, Presence}
    end.

%% @doc The node's epoch has been told to its end, without what was missed.
-spec whole(node(), epoch(), presence()) -> presence().
whole(Node, Epoch, Presence = #presence{halleys = Halleys}) ->
    #{Node := Halley = #halley{epoch = Epoch}} = Halleys,
    Presence#presence{halleys = Halleys#{Node := Halley#halley{whole = true}}}.

%% @doc What is known of each node, for whoever asks.
-spec info(presence()) -> #{node() => #{epoch := epoch(), whole := boolean(), missed := non_neg_integer()}}.
info(#presence{halleys = Halleys}) ->
    maps:map(fun(_, #halley{epoch = Epoch, whole = Whole, missed = Missed}) ->
        #{epoch => Epoch, whole => Whole, missed => Missed}
    end, Halleys).
