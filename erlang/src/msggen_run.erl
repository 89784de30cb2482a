%% @private
%% @doc A run of the generator: the options, the senders, the report.
%%
%% This process is linked to the one that started it, and the senders to this
%% one. It does not send itself, so it answers however busy the senders are.
-module(msggen_run).
-behaviour(gen_server).

%% API.
-export([check/1]).
-export([start_link/1]).
-export([stats/1]).
-export([stop/1]).

%% gen_server.
-export([init/1]).
-export([handle_call/3]).
-export([handle_cast/2]).
-export([handle_info/2]).
-export([terminate/2]).

-include_lib("kernel/include/logger.hrl").

-define(MAX_ID, 16#7FFFFFFFFFFFFFFF).

%% A number takes 8 bytes for each uid: 128 MiB.
-define(MAX_UIDS, 16#1000000).

%% What Halley takes comfortably.
-define(MAX_SIZE, 1048576).
-define(MAX_BATCH, 1000).

%% Sequence numbers stay within the 18 digits that `halley flood' reads.
-define(MAX_SEQ, 100000000000000000).

%% Processes; each costs some KB.
-define(MAX_SENDERS, 100000).

%% Beyond that the largest weights are all there is.
-define(MAX_SKEW, 20).

%% How long a sender that is told to stop may go on with what it is sending. A
%% suspended one is killed then.
-define(STOP_MS, 1000).

-record(state, {
    owner :: pid(),
    start :: integer(),
    senders :: #{pid() => []},
    counters :: [counters:counters_ref()],
    %% Whom to tell when the senders have stopped.
    stopping = no :: no | [gen_server:from()]
}).

-type state() :: #state{}.

%% API.

%% @doc The options with all defaults, or an error that says what is wrong.
-spec check(term()) -> map().
check(Options0) ->
    Options = halley_options:check(Options0, rules()),
    case Options of
        #{stamp := due, rate := infinity} -> halley_options:bad(stamp, due, "now, if there is no rate");
        _ -> Options
    end.

-spec rules() -> [halley_options:rule()].
rules() ->
    [
        {dest, halley, fun is_dest/1, "halley, router, {Name, Node} or a fun of two arguments"},
        {senders, 1, fun(N) -> is_within(N, 1, ?MAX_SENDERS) end, "1 to 100000"},
        {rate, infinity, fun is_rate/1, "a number greater than 0, messages a second, or infinity"},
        {count, infinity, fun is_limit/1, "0 or more messages, or infinity"},
        {duration, infinity, fun is_limit/1, "0 or more milliseconds, or infinity"},
        {size, 100, fun is_size/1, "0 to 1048576 bytes, or {Min, Max}"},
        {uids, {1, 10000}, fun is_uids/1, "{First, Last} with First from 1, at most 16777216 of them"},
        {distribution, uniform, fun is_distribution/1,
            "uniform, round_robin, zipf or {zipf, Skew} with Skew from 0 to 20, and not 0"},
        {batch, 1, fun(N) -> is_within(N, 1, ?MAX_BATCH) end, "1 to 1000"},
        {start, undefined, fun is_integer/1, "a time as of erlang:system_time(microsecond)"},
        {seq, 1, fun(N) -> is_within(N, 1, ?MAX_SEQ) end, "1 to 100000000000000000"},
        {stamp, now, fun(Stamp) -> Stamp =:= now orelse Stamp =:= due end, "now or due"},
        {progress, none, fun is_progress/1, "a fun of one argument, or none"},
        {every, 1000, fun(Ms) -> is_within(Ms, 1, 16#FFFFFFFF) end, "1 to 4294967295 milliseconds"}
    ].

%% @doc Start a run for the caller. Options are those that check/1 answered.
-spec start_link(map()) -> {ok, pid()}.
start_link(Options = #{dest := Dest}) ->
    ok = connect(Dest),
    {ok, Pid} = gen_server:start_link(?MODULE, {self(), Options}, []),
    {ok, Pid}.

-spec stats(pid()) -> msggen:report().
stats(Pid) ->
    gen_server:call(Pid, stats, infinity).

-spec stop(pid()) -> msggen:result().
stop(Pid) ->
    gen_server:call(Pid, stop, infinity).

%% gen_server.

-spec init({pid(), map()}) -> {ok, state()}.
init({Owner, Options}) ->
    %% The end of a sender comes as a message, and so does the end of the owner.
    _ = process_flag(trap_exit, true),
    #{uids := {First, Last}, distribution := Distribution, rate := Rate, count := Count, duration := Ms} = Options,
    N = Last - First + 1,
    Parts = min(maps:get(senders, Options), N),
    Rates = case Rate of
        infinity -> lists:duplicate(Parts, infinity);
        _ -> [Rate * Share || Share <- msggen_uids:shares(Distribution, N, Parts)]
    end,
    Counts = case Count of
        infinity -> lists:duplicate(Parts, infinity);
        _ -> msggen_uids:counts(Distribution, N, Parts, Count)
    end,
    Config = (maps:with([dest, uids, distribution, size, batch, seq, stamp], Options))#{
        parts => Parts,
        duration_us => if Ms =:= infinity -> infinity; true -> Ms * 1000 end
    },
    Started = [msggen_sender:start_link(Config#{part => Part, rate => R, count => C})
        || {Part, R, C} <- lists:zip3(lists:seq(0, Parts - 1), Rates, Counts)],
    lists:foreach(fun({Pid, _}) ->
        receive
            {ready, Pid} -> ok;
            {'EXIT', Pid, Reason} -> exit(Reason)
        end
    end, Started),
    Start = start_at(maps:get(start, Options)),
    lists:foreach(fun({Pid, _}) -> msggen_sender:go(Pid, Start) end, Started),
    {ok, #state{
        owner = Owner,
        start = Start,
        senders = maps:from_list([{Pid, []} || {Pid, _} <- Started]),
        counters = [Counters || {_, Counters} <- Started]
    }}.

-spec handle_call(term(), gen_server:from(), state()) -> {noreply, state()} | {reply, term(), state()}.
handle_call(stats, _From, State) ->
    {reply, report(State), State};
handle_call(stop, From, State = #state{senders = Senders, stopping = no}) ->
    lists:foreach(fun msggen_sender:stop/1, maps:keys(Senders)),
    _ = erlang:start_timer(?STOP_MS, self(), kill),
    {noreply, State#state{stopping = [From]}};
handle_call(stop, From, State = #state{stopping = Waiting}) ->
    {noreply, State#state{stopping = [From | Waiting]}};
handle_call(Request, From, State) ->
    ?LOG_WARNING("msggen: odd request ~tp from ~tp", [Request, From]),
    {reply, {error, {bad_request, Request}}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(Message, State) ->
    ?LOG_WARNING("msggen: odd message ~tp", [Message]),
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()} | {stop, term(), state()}.
handle_info({'EXIT', Pid, Reason}, State = #state{senders = Senders, stopping = Stopping}) when
        is_map_key(Pid, Senders) ->
    case Reason of
        normal -> ended(Pid, State);
        killed when Stopping =/= no -> ended(Pid, State);
        {failed, Class, Why, Stack} -> failed(Pid, {Class, Why, Stack}, State);
        _ -> failed(Pid, {exit, Reason, []}, State)
    end;
handle_info({'EXIT', _, Reason}, State) ->
    {stop, Reason, State};
handle_info({timeout, _, kill}, State) ->
    ok = kill(State),
    {noreply, State};
handle_info(Message, State) ->
    ?LOG_WARNING("msggen: odd message ~tp", [Message]),
    {noreply, State}.

%% Links alone would leave the senders behind when this process ends as normal.
-spec terminate(term(), state()) -> ok.
terminate(_Reason, State = #state{senders = Senders}) ->
    ok = kill(State),
    lists:foreach(fun(Pid) ->
        receive
            {'EXIT', Pid, _} -> ok
        end
    end, maps:keys(Senders)).

%% Internal.

%% Before the start, so that the first messages are not late for it; and who
%% misspelt a node hears of it here, where `!' says nothing.
-spec connect(msggen:dest()) -> ok.
connect({_, Node}) when Node =/= node() ->
    case net_kernel:connect_node(Node) of
        true -> ok;
        _ -> error({not_connected, Node})
    end;
connect(_) ->
    ok.

%% In the past as well: what was due since then is made up for.
-spec start_at(integer() | undefined) -> integer().
start_at(undefined) ->
    erlang:monotonic_time(microsecond);
start_at(Time) ->
    Time - erlang:time_offset(microsecond).

-spec ended(pid(), state()) -> {noreply, state()} | {stop, normal, state()}.
ended(Pid, State0 = #state{senders = Senders}) ->
    State = State0#state{senders = maps:remove(Pid, Senders)},
    case map_size(State#state.senders) of
        0 -> finish({ok, report(State)}, State);
        _ -> {noreply, State}
    end.

-spec failed(pid(), msggen:failure(), state()) -> {stop, normal, state()}.
failed(Pid, Failure, State = #state{senders = Senders}) ->
    finish({error, Failure}, State#state{senders = maps:remove(Pid, Senders)}).

%% The owner first: if it is the one that asked to stop, it finds the message
%% when it has the answer.
-spec finish(msggen:result(), state()) -> {stop, normal, state()}.
finish(Result, State = #state{owner = Owner, stopping = Stopping}) ->
    Owner ! {msggen, self(), Result},
    case Stopping of
        no -> ok;
        _ -> lists:foreach(fun(From) -> gen_server:reply(From, Result) end, Stopping)
    end,
    {stop, normal, State}.

-spec kill(state()) -> ok.
kill(#state{senders = Senders}) ->
    lists:foreach(fun(Pid) -> exit(Pid, kill) end, maps:keys(Senders)).

-spec report(state()) -> msggen:report().
report(#state{start = Start, counters = Counters}) ->
    Elapsed = max(0, erlang:monotonic_time(microsecond) - Start),
    {Sent, Bytes, Late, Suspended, SuspendedUs} = lists:foldl(fun(Ref, {S, B, L, N, U}) ->
        {S1, B1, L1, N1, U1} = msggen_sender:counts(Ref),
        {S + S1, B + B1, max(L, L1), N + N1, U + U1}
    end, {0, 0, 0, 0, 0}, Counters),
    #{
        sent => Sent,
        bytes => Bytes,
        elapsed_us => Elapsed,
        rate => Sent * 1.0e6 / max(1, Elapsed),
        senders => length(Counters),
        late_us_max => Late,
        suspended => Suspended,
        suspended_us => SuspendedUs
    }.

%% Checks.

-spec is_dest(term()) -> boolean().
is_dest({Name, Node}) -> is_atom(Name) andalso is_atom(Node);
is_dest(Dest) -> Dest =:= halley orelse Dest =:= router orelse is_function(Dest, 2).

-spec is_within(term(), integer(), integer()) -> boolean().
is_within(N, Min, Max) -> is_integer(N) andalso N >= Min andalso N =< Max.

-spec is_rate(term()) -> boolean().
is_rate(Rate) -> Rate =:= infinity orelse is_number(Rate) andalso Rate > 0.

-spec is_limit(term()) -> boolean().
is_limit(N) -> N =:= infinity orelse is_integer(N) andalso N >= 0.

-spec is_size(term()) -> boolean().
is_size({Min, Max}) -> is_within(Max, 0, ?MAX_SIZE) andalso is_within(Min, 0, Max);
is_size(Size) -> is_within(Size, 0, ?MAX_SIZE).

-spec is_uids(term()) -> boolean().
is_uids({First, Last}) ->
    is_within(First, 1, ?MAX_ID) andalso is_within(Last, First, ?MAX_ID) andalso Last - First < ?MAX_UIDS;
is_uids(_) ->
    false.

-spec is_distribution(term()) -> boolean().
is_distribution({zipf, Skew}) -> is_number(Skew) andalso Skew > 0 andalso Skew =< ?MAX_SKEW;
is_distribution(Distribution) -> lists:member(Distribution, [uniform, round_robin, zipf]).

-spec is_progress(term()) -> boolean().
is_progress(Progress) -> Progress =:= none orelse is_function(Progress, 1).
