%% @private
%% @doc Who gets the next message.
%%
%% The N uids are divided into parts, one for each sender: number K, counted
%% from 0, is in part K rem Parts, at index K div Parts. So every uid has one
%% owner, who counts its messages without a lock.
%%
%% A part draws from its own uids only. For the whole to have the right
%% weights, a part must send as much of all messages as its uids weigh
%% together: that is what `shares/3' and `counts/4' are for.
-module(msggen_uids).

-export([shares/3]).
-export([counts/4]).
-export([new/4]).
-export([next/2]).

-type distribution() :: uniform | round_robin | zipf | {zipf, Skew :: number()}.
-type state() :: rand:state() | non_neg_integer().
%% What changes from one draw to the next.
-export_type([distribution/0, picker/0, state/0]).

%% As in `halley flood'. Of ten thousand uids the first gets about a fifth.
-define(SKEW, 1.2).

%% So close to 1 the antiderivative of X^-Skew loses its digits: it is taken for 1.
-define(ONE, 1.0e-6).

%% A part with Zipf's distribution; see next/2.
-record(zipf, {
    skew :: float(),
    offset :: float(),
    last :: non_neg_integer(),
    %% The antiderivative at the ends, and where index 0 ends.
    low :: float(),
    high :: float(),
    first :: float(),
    squeeze :: float()
}).

-opaque picker() :: {uniform, pos_integer()} | {round_robin, pos_integer()} | #zipf{}.

%% @doc What part of all messages each part has to send; they add up to 1.
-spec shares(distribution(), N :: pos_integer(), Parts :: pos_integer()) -> [float()].
shares(_, _, 1) ->
    [1.0];
shares(Distribution, N, Parts) ->
    Weights = [weight(Distribution, N, Part, Parts) || Part <- lists:seq(0, Parts - 1)],
    Sum = lists:sum(Weights),
    [Weight / Sum || Weight <- Weights].

%% @doc How many of Count messages each part has to send; they add up to Count.
-spec counts(distribution(), N :: pos_integer(), Parts :: pos_integer(), Count :: non_neg_integer()) ->
    [non_neg_integer()].
counts(round_robin, N, Parts, Count) ->
    [Count div N * size(N, Part, Parts) + size(Count rem N, Part, Parts) || Part <- lists:seq(0, Parts - 1)];
counts(Distribution, N, Parts, Count) ->
    Exact = lists:zip(lists:seq(1, Parts), [Count * Share || Share <- shares(Distribution, N, Parts)]),
    Rest = Count - lists:sum([trunc(X) || {_, X} <- Exact]),
    %% What rounding down left over goes to those that it took most from.
    ByLoss = lists:sort(fun({_, X}, {_, Y}) -> X - trunc(X) >= Y - trunc(Y) end, Exact),
    {More, Same} = lists:split(min(max(Rest, 0), Parts), ByLoss),
    [X || {_, X} <- lists:sort([{Part, trunc(X) + 1} || {Part, X} <- More] ++
        [{Part, trunc(X)} || {Part, X} <- Same])].

%% @doc What draws from one part, and the state to begin with.
-spec new(distribution(), N :: pos_integer(), Part :: non_neg_integer(), Parts :: pos_integer()) ->
    {picker(), state()}.
new(uniform, N, Part, Parts) ->
    {{uniform, size(N, Part, Parts)}, rand:seed_s(exsss)};
new(round_robin, N, Part, Parts) ->
    {{round_robin, size(N, Part, Parts)}, 0};
new(zipf, N, Part, Parts) ->
    new({zipf, ?SKEW}, N, Part, Parts);
new({zipf, Skew0}, N, Part, Parts) ->
    Skew = skew(Skew0),
    %% The rank of index I is 1 + Part + I * Parts: as Parts^-Skew is the same
    %% for all of them, the weight is (I + Offset)^-Skew.
    Offset = (1 + Part) / Parts,
    Size = size(N, Part, Parts),
    First = antiderivative(0.5 + Offset, Skew),
    {#zipf{
        skew = Skew,
        offset = Offset,
        last = Size - 1,
        low = First - math:pow(Offset, -Skew),
        high = antiderivative(Size - 0.5 + Offset, Skew),
        first = First,
        squeeze = 1 + Offset -
            inverse(antiderivative(1.5 + Offset, Skew) - math:pow(1 + Offset, -Skew), Skew)
    }, rand:seed_s(exsss)}.

%% @doc Draw: an index of the part, counted from 0.
%%
%% Zipf's distribution is drawn by rejection-inversion: W. Hörmann, G.
%% Derflinger, "Rejection-inversion to generate variates from monotone discrete
%% distributions", ACM TOMACS 6 (3), 1996. It needs no table: a point is
%% drawn from the area under the curve X^-Skew, which reaches from Index - 0.5
%% to Index + 0.5 and is never smaller than the weight there, because the curve
%% is convex; of that area the last piece, as large as the weight, is accepted.
%% Index 0 gets exactly its weight, whatever the curve does left of it.
-spec next(picker(), state()) -> {Index :: non_neg_integer(), state()}.
next({uniform, Size}, State0) ->
    {N, State} = rand:uniform_s(Size, State0),
    {N - 1, State};
next({round_robin, Size}, N) ->
    {N, (N + 1) rem Size};
next(Zipf = #zipf{low = Low, high = High, first = First, skew = Skew, offset = Offset}, State0) ->
    {Uniform, State} = rand:uniform_s(State0),
    case High + Uniform * (Low - High) of
        Area when Area =< First ->
            {0, State};
        Area ->
            X = inverse(Area, Skew) - Offset,
            Index = min(round(X), Zipf#zipf.last),
            %% The squeeze spares two powers. It holds for index 1, and from
            %% there on ever more is accepted.
            case Index - X =< Zipf#zipf.squeeze orelse
                    Area >= antiderivative(Index + 0.5 + Offset, Skew) - math:pow(Index + Offset, -Skew) of
                true -> {Index, State};
                false -> next(Zipf, State)
            end
    end.

%% Internal.

%% How many of 0..N-1 are in the part.
-spec size(non_neg_integer(), non_neg_integer(), pos_integer()) -> non_neg_integer().
size(N, Part, Parts) ->
    (N - Part + Parts - 1) div Parts.

-spec weight(distribution(), pos_integer(), non_neg_integer(), pos_integer()) -> number().
weight(zipf, N, Part, Parts) ->
    weight({zipf, ?SKEW}, N, Part, Parts);
weight({zipf, Skew}, N, Part, Parts) ->
    sum(1 + Part, N, Parts, skew(Skew), 0.0);
weight(_, N, Part, Parts) ->
    size(N, Part, Parts).

-spec sum(pos_integer(), pos_integer(), pos_integer(), float(), float()) -> float().
sum(Rank, N, _, _, Sum) when Rank > N -> Sum;
sum(Rank, N, Parts, Skew, Sum) -> sum(Rank + Parts, N, Parts, Skew, Sum + math:pow(Rank, -Skew)).

-spec skew(number()) -> float().
skew(Skew) when abs(Skew - 1) < ?ONE -> 1.0;
skew(Skew) -> float(Skew).

-spec antiderivative(float(), float()) -> float().
antiderivative(X, 1.0) -> math:log(X);
antiderivative(X, Skew) -> math:pow(X, 1 - Skew) / (1 - Skew).

-spec inverse(float(), float()) -> float().
inverse(Y, 1.0) -> math:exp(Y);
inverse(Y, Skew) -> math:pow(Y * (1 - Skew), 1 / (1 - Skew)).
