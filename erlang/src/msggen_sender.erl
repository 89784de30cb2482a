%% @private
%% @doc One sender of `msggen:run/1': it draws uids of its part, numbers the
%% messages, and sends them when they are due.
%%
%% It ends when it has sent its part, when the time is over, or when it is told
%% to `stop'. What it sends is counted before it is sent: a sender that is
%% suspended and must be killed has handed that message over already.
-module(msggen_sender).

%% API.
-export([start_link/1]).
-export([go/2]).
-export([stop/1]).
-export([counts/1]).

%% What has not been sent so long after the end of the run is given up.
-define(GRACE_US, 100000).

%% Longer pauses are made of several: `after' has a limit.
-define(MAX_PAUSE_MS, 3600000).

%% A list to a name on a node is cut here. The bound on bytes keeps it away
%% from Halley's --max-packet.
-define(LIST_BYTES, 1048576).

%% A send that took longer was held up.
-define(HELD_UP_US, 1000).

%% Two clocks read within this were read at the same time.
-define(CLOCK_US, 50).
-define(CLOCK_TRIES, 10).

%% The counters.
-define(SENT, 1).
-define(BYTES, 2).
-define(LATE_MAX, 3).
-define(SUSPENDED, 4).
-define(SUSPENDED_US, 5).

-type config() :: #{
    dest := msggen:dest(),
    part := non_neg_integer(),
    parts := pos_integer(),
    uids := {msggen:id(), msggen:id()},
    distribution := msggen_uids:distribution(),
    %% Of this sender.
    rate := float() | infinity,
    count := non_neg_integer() | infinity,
    duration_us := non_neg_integer() | infinity,
    size := msggen:size(),
    batch := pos_integer(),
    seq := pos_integer(),
    stamp := now | due
}.
-type counts() :: {Sent :: non_neg_integer(), Bytes :: non_neg_integer(), LateMaxUs :: non_neg_integer(),
    Suspended :: non_neg_integer(), SuspendedUs :: non_neg_integer()}.
-export_type([config/0, counts/0]).

-record(sender, {
    dest :: {Name :: atom(), node()} | halley | fun((msggen:id(), binary()) -> term()),
    %% Lists, be it of one, of at most so many; or single messages.
    lists :: boolean(),
    batch :: pos_integer(),
    %% Whose messages: uid First + Step * Index for each index that is drawn.
    picker :: msggen_uids:picker(),
    first :: msggen:id(),
    step :: pos_integer(),
    %% The last number of each index, where 0 stands for the one before the first.
    numbers :: atomics:atomics_ref(),
    seq :: pos_integer(),
    %% Bytes of a body; Padding has as many as the largest.
    min :: non_neg_integer(),
    max :: non_neg_integer(),
    padding :: binary(),
    stamp :: now | due,
    %% Message N, counted from 0, is due at start + (N + phase) * interval.
    start :: integer(),
    interval :: float() | none,
    phase :: float(),
    %% No more than so many; and so many are due before the end.
    count :: non_neg_integer() | infinity,
    due :: non_neg_integer() | infinity,
    finish :: integer() | infinity,
    counters :: counters:counters_ref()
}).

%% API.

%% @doc Start a sender. It tells the caller `{ready, Pid}' when all that takes
%% time is done, and waits for go/2.
-spec start_link(config()) -> {pid(), counters:counters_ref()}.
start_link(Config) ->
    Self = self(),
    Counters = counters:new(5, []),
    Pid = spawn_link(fun() -> init(Self, Config, Counters) end),
    {Pid, Counters}.

%% @doc Begin at Start, an erlang:monotonic_time(microsecond) as all times here.
-spec go(pid(), integer()) -> ok.
go(Pid, Start) ->
    Pid ! {go, Start},
    ok.

-spec stop(pid()) -> ok.
stop(Pid) ->
    Pid ! stop,
    ok.

-spec counts(counters:counters_ref()) -> counts().
counts(Counters) ->
    {counters:get(Counters, ?SENT), counters:get(Counters, ?BYTES), counters:get(Counters, ?LATE_MAX),
        counters:get(Counters, ?SUSPENDED), counters:get(Counters, ?SUSPENDED_US)}.

%% Internal.

-spec init(pid(), config(), counters:counters_ref()) -> ok.
init(Parent, Config = #{dest := Dest0, part := Part, parts := Parts, uids := {First, Last}}, Counters) ->
    #{distribution := Distribution, rate := Rate, duration_us := Duration, size := Size} = Config,
    N = Last - First + 1,
    {Picker, State} = msggen_uids:new(Distribution, N, Part, Parts),
    {Min, Max} = if is_integer(Size) -> {Size, Size}; true -> Size end,
    {Dest, Batch} = dest(Dest0, maps:get(batch, Config), Max),
    %% The senders are due one after the other, and not all at once.
    Phase = Part / Parts,
    Interval = if Rate =:= infinity -> none; true -> 1.0e6 / Rate end,
    Sender = #sender{
        dest = Dest,
        lists = is_list_dest(Dest) andalso maps:get(batch, Config) > 1,
        batch = Batch,
        picker = Picker,
        first = First + Part,
        step = Parts,
        numbers = atomics:new((N - Part + Parts - 1) div Parts, [{signed, false}]),
        seq = maps:get(seq, Config),
        min = Min,
        max = Max,
        padding = binary:copy(<<"x">>, Max),
        stamp = maps:get(stamp, Config),
        start = 0,
        interval = Interval,
        phase = Phase,
        count = maps:get(count, Config),
        due = due_before(Duration, Interval, Phase),
        finish = infinity,
        counters = Counters
    },
    Rand = rand:seed_s(exsss),
    Parent ! {ready, self()},
    Start = receive {go, Time} -> Time end,
    Finish = if Duration =:= infinity -> infinity; true -> Start + Duration end,
    try
        loop(0, 0, State, Rand, Sender#sender{start = Start, finish = Finish})
    catch
        %% Told by the reason, and not by a crash that is logged: the caller
        %% of msggen:run/1 gets it.
        Class:Reason:Stack -> exit({failed, Class, Reason, Stack})
    end.

-spec dest(msggen:dest(), pos_integer(), non_neg_integer()) ->
    {{atom(), node()} | halley | fun((msggen:id(), binary()) -> term()), pos_integer()}.
dest(router, _, _) -> {fun router:send/2, 1};
dest(Fun, _, _) when is_function(Fun) -> {Fun, 1};
dest(Dest, Batch, Max) -> {Dest, min(Batch, max(1, ?LIST_BYTES div max(1, Max)))}.

-spec is_list_dest({atom(), node()} | halley | fun((msggen:id(), binary()) -> term())) -> boolean().
is_list_dest(Dest) -> not is_function(Dest).

-spec due_before(non_neg_integer() | infinity, float() | none, float()) -> non_neg_integer() | infinity.
due_before(infinity, _, _) -> infinity;
due_before(_, none, _) -> infinity;
due_before(Duration, Interval, Phase) -> max(0, ceil(Duration / Interval - Phase)).

%% Sent is how many are sent, Late the latest so far.
-spec loop(non_neg_integer(), non_neg_integer(), msggen_uids:state(), rand:state(), #sender{}) -> ok.
loop(Sent, Late, State, Rand, Sender) ->
    receive
        stop -> ok
    after 0 ->
        Now = now_us(),
        case next(Sent, Now, Sender) of
            done ->
                ok;
            {wait, Until} ->
                wait(Until - Now, Sent, Late, State, Rand, Sender);
            {flat_out, N} ->
                {State1, Rand1} = send(N, Sent, State, Rand, Sender),
                loop(Sent + N, Late, State1, Rand1, Sender);
            {due, N, Due} ->
                Late1 = late(Now - Due, Late, Sender),
                {State1, Rand1} = send(N, Sent, State, Rand, Sender),
                loop(Sent + N, Late1, State1, Rand1, Sender)
        end
    end.

%% Timers count milliseconds: what is due within one goes out together.
-spec wait(pos_integer(), non_neg_integer(), non_neg_integer(), msggen_uids:state(), rand:state(), #sender{}) -> ok.
wait(Us, Sent, Late, State, Rand, Sender) ->
    receive
        stop -> ok
    after min((Us + 999) div 1000, ?MAX_PAUSE_MS) ->
        loop(Sent, Late, State, Rand, Sender)
    end.

%% What to do now. The limits that are `infinity' are greater than any number,
%% as every atom is.
-spec next(non_neg_integer(), integer(), #sender{}) ->
    done | {wait, integer()} | {flat_out, pos_integer()} | {due, pos_integer(), integer()}.
next(Sent, _, #sender{count = Count}) when Sent >= Count ->
    done;
next(_, Now, #sender{start = Start}) when Now < Start ->
    {wait, Start};
next(_, Now, #sender{interval = none, finish = Finish}) when Now >= Finish ->
    done;
next(Sent, _, #sender{interval = none, count = Count, batch = Batch}) ->
    {flat_out, left(Count, Sent, Batch)};
next(_, Now, #sender{finish = Finish}) when is_integer(Finish), Now >= Finish + ?GRACE_US ->
    done;
next(Sent, Now, #sender{due = All, finish = Finish}) when Sent >= All ->
    %% The run lasts as long as it was asked to.
    if Now >= Finish -> done; true -> {wait, Finish} end;
next(Sent, Now, Sender = #sender{start = Start, interval = Interval, phase = Phase, batch = Batch}) ->
    case due_at(Sent, Sender) of
        Due when Due > Now ->
            {wait, Due};
        Due ->
            N = trunc((Now - Start) / Interval - Phase) + 1 - Sent,
            Most = left(Sender#sender.due, Sent, left(Sender#sender.count, Sent, Batch)),
            {due, max(1, min(N, Most)), Due}
    end.

-spec left(non_neg_integer() | infinity, non_neg_integer(), pos_integer()) -> pos_integer().
left(infinity, _, Most) -> Most;
left(All, Sent, Most) -> min(All - Sent, Most).

-spec due_at(non_neg_integer(), #sender{}) -> integer().
due_at(N, #sender{start = Start, interval = Interval, phase = Phase}) ->
    Start + ceil((N + Phase) * Interval).

-spec late(integer(), non_neg_integer(), #sender{}) -> non_neg_integer().
late(Us, Late, #sender{counters = Counters}) when Us > Late ->
    ok = counters:put(Counters, ?LATE_MAX, Us),
    Us;
late(_, Late, _) ->
    Late.

%% Sending.

-spec send(pos_integer(), non_neg_integer(), msggen_uids:state(), rand:state(), #sender{}) ->
    {msggen_uids:state(), rand:state()}.
send(N, Sent, State0, Rand0, Sender = #sender{stamp = Stamp, counters = Counters}) ->
    Micros = case Stamp of
        %% The messages of a list leave together.
        now -> integer_to_binary(os:system_time(microsecond));
        due -> {Sent, wall_offset(?CLOCK_TRIES)}
    end,
    case Sender#sender.lists of
        false ->
            {Uid, Body, State, Rand} = message(Micros, State0, Rand0, Sender),
            ok = count(1, byte_size(Body), Counters),
            ok = one(Sender#sender.dest, Uid, Body, Counters),
            {State, Rand};
        true ->
            {List, Bytes, State, Rand} = messages(N, Micros, 0, State0, Rand0, Sender),
            ok = count(N, Bytes, Counters),
            ok = list(Sender#sender.dest, List, Counters),
            {State, Rand}
    end.

-spec count(pos_integer(), non_neg_integer(), counters:counters_ref()) -> ok.
count(N, Bytes, Counters) ->
    ok = counters:add(Counters, ?SENT, N),
    counters:add(Counters, ?BYTES, Bytes).

%% Built front to back: a uid's messages must stand in their order.
-spec messages(non_neg_integer(), binary() | {non_neg_integer(), integer()}, non_neg_integer(),
    msggen_uids:state(), rand:state(), #sender{}) ->
    {[{msggen:id(), binary()}], non_neg_integer(), msggen_uids:state(), rand:state()}.
messages(0, _, Bytes, State, Rand, _) ->
    {[], Bytes, State, Rand};
messages(N, Micros, Bytes0, State0, Rand0, Sender) ->
    {Uid, Body, State1, Rand1} = message(Micros, State0, Rand0, Sender),
    {List, Bytes, State, Rand} =
        messages(N - 1, after_this(Micros), Bytes0 + byte_size(Body), State1, Rand1, Sender),
    {[{Uid, Body} | List], Bytes, State, Rand}.

-spec after_this(binary() | {non_neg_integer(), integer()}) -> binary() | {non_neg_integer(), integer()}.
after_this({Sent, Offset}) -> {Sent + 1, Offset};
after_this(Micros) -> Micros.

-spec message(binary() | {non_neg_integer(), integer()}, msggen_uids:state(), rand:state(), #sender{}) ->
    {msggen:id(), binary(), msggen_uids:state(), rand:state()}.
message({Sent, Offset}, State, Rand, Sender) ->
    message(integer_to_binary(due_at(Sent, Sender) + Offset), State, Rand, Sender);
message(Micros, State0, Rand0, Sender = #sender{first = First, step = Step, numbers = Numbers, seq = Seq}) ->
    {Index, State} = msggen_uids:next(Sender#sender.picker, State0),
    Number = integer_to_binary(atomics:add_get(Numbers, Index + 1, 1) - 1 + Seq),
    {Size, Rand} = size(Rand0, Sender),
    Fill = max(0, Size - byte_size(Number) - byte_size(Micros) - 2),
    %% One allocation: the padding is the beginning of one binary for all.
    Body = <<Number/binary, $\s, Micros/binary, $\s, (Sender#sender.padding):Fill/binary>>,
    {First + Step * Index, Body, State, Rand}.

-spec size(rand:state(), #sender{}) -> {non_neg_integer(), rand:state()}.
size(Rand, #sender{min = Size, max = Size}) ->
    {Size, Rand};
size(Rand0, #sender{min = Min, max = Max}) ->
    {N, Rand} = rand:uniform_s(Max - Min + 1, Rand0),
    {Min + N - 1, Rand}.

-spec one({atom(), node()} | halley | fun((msggen:id(), binary()) -> term()), msggen:id(), binary(),
    counters:counters_ref()) -> ok.
one({_, _} = Dest, Uid, Body, Counters) ->
    to_name(Dest, {Uid, Body}, Counters);
one(halley, Uid, Body, Counters) ->
    Before = now_us(),
    ok = halley:send(Uid, Body),
    held_up(now_us() - Before, Counters);
one(Fun, Uid, Body, Counters) ->
    Before = now_us(),
    _ = Fun(Uid, Body),
    held_up(now_us() - Before, Counters).

-spec list({atom(), node()} | halley, [{msggen:id(), binary()}], counters:counters_ref()) -> ok.
list({_, _} = Dest, List, Counters) ->
    to_name(Dest, List, Counters);
list(halley, List, Counters) ->
    Before = now_us(),
    ok = halley:send_many(List),
    held_up(now_us() - Before, Counters).

%% `!' that knows whether it was suspended: the clock is read only then.
-spec to_name({atom(), node()}, term(), counters:counters_ref()) -> ok.
to_name(Dest, Message, Counters) ->
    case erlang:send(Dest, Message, [nosuspend]) of
        ok ->
            ok;
        nosuspend ->
            Before = now_us(),
            _ = erlang:send(Dest, Message),
            held_up(now_us() - Before, Counters)
    end.

-spec held_up(integer(), counters:counters_ref()) -> ok.
held_up(Us, Counters) when Us > ?HELD_UP_US ->
    ok = counters:add(Counters, ?SUSPENDED, 1),
    counters:add(Counters, ?SUSPENDED_US, Us);
held_up(_, _) ->
    ok.

%% From monotonic time to the time of day. The two clocks are read again if this
%% process had to wait between them.
-spec wall_offset(pos_integer()) -> integer().
wall_offset(Tries) ->
    Before = now_us(),
    Wall = os:system_time(microsecond),
    case now_us() - Before of
        Us when Us > ?CLOCK_US, Tries > 1 -> wall_offset(Tries - 1);
        _ -> Wall - Before
    end.

-spec now_us() -> integer().
now_us() ->
    erlang:monotonic_time(microsecond).
