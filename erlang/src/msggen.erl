%% @doc The message generator of "A Million-user Comet Application with Mochiweb",
%% and one in earnest.
%%
%% `start/3' is the articles'. It runs in the caller until the last message is
%% sent. For more traffic, spawn it many times:
%% ```
%% [spawn(msggen, start, [1000000, 60, 1000000]) || _ <- lists:seq(1, 1000)].
%% '''
%%
%% `run/1' sends what `halley flood' checks: each body begins with the message's
%% number among those of its uid, and when it was sent. It keeps to a rate,
%% sends lists, and tells what it did:
%% ```
%% {ok, Report} = msggen:run(#{dest => {httpd, 'halley@host'}, uids => {1, 1000},
%%     senders => 4, rate => 20000, duration => 10000}).
%% '''
-module(msggen).

%% API.
-export([start/3]).
-export([start/4]).
-export([run/1]).
-export([start_run/1]).
-export([stats/1]).
-export([stop/1]).

-define(MAX_ID, 16#7FFFFFFFFFFFFFFF).

-type id() :: 1..16#7FFFFFFFFFFFFFFF.
-type dest() :: halley
    | router
    | {Name :: atom(), node()}
    | fun((id(), binary()) -> term()).
%% Where the messages go: to all Halley nodes that are up, through the articles'
%% router, to a name on a node (as the articles drove their C node), or to a fun.
-type size() :: non_neg_integer() | {Min :: non_neg_integer(), Max :: non_neg_integer()}.
%% Bytes of a body, at most 1 MiB.
-type options() :: #{
    dest => dest(),
    senders => pos_integer(),
    rate => number() | infinity,
    count => non_neg_integer() | infinity,
    duration => non_neg_integer() | infinity,
    size => size(),
    uids => {First :: id(), Last :: id()},
    distribution => uniform | round_robin | zipf | {zipf, Skew :: number()},
    batch => pos_integer(),
    start => integer(),
    seq => pos_integer(),
    stamp => now | due,
    progress => fun((report()) -> term()) | none,
    every => pos_integer()
}.
-type report() :: #{
    sent := non_neg_integer(),
    bytes := non_neg_integer(),
    elapsed_us := non_neg_integer(),
    rate := float(),
    senders := pos_integer(),
    late_us_max := non_neg_integer(),
    suspended := non_neg_integer(),
    suspended_us := non_neg_integer()
}.
-type failure() :: {Class :: error | exit | throw, Reason :: term(), Stack :: list()}.
-type result() :: {ok, report()} | {error, failure()}.
%% The failure is that of the first sender that failed; the others are ended with it.
-export_type([id/0, dest/0, size/0, options/0, report/0, failure/0, result/0]).

%% API.

%% @doc Send Num messages to the users of Halley, one every Interval
%% milliseconds, each to a uid from 1 to Max drawn at random.
%%
%% The text is `Fake message Num = N'; N counts down to 1, as in the articles.
%% Interval 0 sends as fast as possible.
-spec start(Num :: non_neg_integer(), Interval :: non_neg_integer(), Max :: id()) -> ok.
start(Num, Interval, Max) ->
    start(halley, Num, Interval, Max).

%% @doc The same, to another destination.
-spec start(dest(), Num :: non_neg_integer(), Interval :: non_neg_integer(), Max :: id()) -> ok.
start(Dest, Num, Interval, Max) when
        is_integer(Num), Num >= 0, is_integer(Interval), Interval >= 0,
        is_integer(Max), Max >= 1, Max =< ?MAX_ID ->
    loop(send_fun(Dest), Num, Interval, Max, erlang:monotonic_time(millisecond)).

%% @doc Send messages as Options say, until all are sent, and tell what came of it.
%%
%% A body is `SEQ MICROS ' and then padding: SEQ is the message's number among
%% those of its uid, without a gap and in the order they are sent, MICROS the
%% time in microseconds since 1970.
%%
%% The options:
%% <dl>
%% <dt>`dest'</dt><dd>Where to; `halley' if not given.</dd>
%% <dt>`senders'</dt><dd>Processes that send, 1. They divide the uids: with more senders than uids there are
%% as many as uids.</dd>
%% <dt>`rate'</dt><dd>Messages a second, all senders together, as an open loop: what is late is made up for.
%% `infinity', as fast as they go, if not given.</dd>
%% <dt>`count', `duration'</dt><dd>Messages, all senders together, and milliseconds: whichever is over first.
%% `run/1' wants one of them. With a rate, what is due before the end may be sent up to 100 ms after it.</dd>
%% <dt>`size'</dt><dd>Bytes of a body, 100; `{Min, Max}' draws it for each message. The numbers take what they
%% need.</dd>
%% <dt>`uids'</dt><dd>Whom to send to, `{1, 10000}'; 16,777,216 at most, 8 bytes each.</dd>
%% <dt>`distribution'</dt><dd>`uniform', the default; `round_robin', in turn; `{zipf, Skew}', where the uid number
%% K gets messages by the weight K^-Skew; `zipf' is `{zipf, 1.2}'. With `rate' or `count' the weights hold over
%% all senders. With neither, all senders send as fast as they can, and the weights hold within each one's
%% uids.</dd>
%% <dt>`batch'</dt><dd>1: single messages. More, up to 1000: lists of so many, or of as many as are due; lists
%% of more than 1 MiB are cut. A router and a fun get one message at a time all the same.</dd>
%% <dt>`start'</dt><dd>When to begin, as of `erlang:system_time(microsecond)'; now, if not given. So generators
%% on several nodes begin together. If it is over, what was due since then is made up for.</dd>
%% <dt>`seq'</dt><dd>The first number of each uid, 1.</dd>
%% <dt>`stamp'</dt><dd>The time in the body: `now', when it is built; `due', when it should have been sent, so that
%% what a suspended sender could not send in time shows as latency. `due' needs a rate.</dd>
%% <dt>`progress', `every'</dt><dd>A fun that `run/1' calls with the report so far, each `every' milliseconds
%% (1000).</dd>
%% </dl>
%%
%% In the report, `bytes' are those of the bodies, `rate' is messages a second since the start.
%% `late_us_max' is how late against the rate's schedule the latest message left,
%% and 0 without a rate.
%% `suspended' is the number of sends that took more than a millisecond, and
%% `suspended_us' what they took together: to a name on a node, because Erlang suspended the sender
%% (`busy_dist_port'); elsewhere, for whatever reason.
%%
%% A bad option is an error: `{bad_option, Key, Value, Expected}'. So is a node
%% that is not there at the start: `{not_connected, Node}'. What a sender raises
%% is raised here: with destination `halley', the error that the application is not started.
-spec run(options()) -> {ok, report()}.
run(Options0) ->
    Options = #{progress := Progress, every := Every} = msggen_run:check(Options0),
    case Options of
        #{count := infinity, duration := infinity} ->
            halley_options:bad(count, infinity, "a number, if duration is not given");
        _ ->
            ok
    end,
    {ok, Pid} = msggen_run:start_link(Options),
    Monitor = monitor(process, Pid),
    Next = erlang:monotonic_time(millisecond) + Every,
    try wait(Pid, Monitor, Progress, Every, Next) of
        {ok, Report} -> {ok, Report};
        {error, {Class, Reason, Stack}} -> erlang:raise(Class, Reason, Stack)
    after
        ok = leave(Pid, Monitor)
    end.

%% @doc The same, and do not wait for the end.
%%
%% When it comes, the caller gets `{msggen, Pid, Result}', a {@type result()}.
%% Pid is linked to the caller, and the senders to Pid: nothing stays behind
%% when either ends, for whatever reason. Without `count' and `duration' it
%% sends until it is stopped. There is no `progress' here: see {@link stats/1}.
-spec start_run(options()) -> {ok, pid()}.
start_run(Options0) ->
    case msggen_run:check(Options0) of
        #{progress := none} = Options -> msggen_run:start_link(Options);
        #{progress := Progress} -> halley_options:bad(progress, Progress, "none; only run/1 has progress")
    end.

%% @doc The report of a run so far. When it is over, it exits with `noproc'.
-spec stats(pid()) -> report().
stats(Pid) ->
    msggen_run:stats(Pid).

%% @doc Stop a run, and tell what it did.
%%
%% A sender ends after the message or list it is sending. One that is suspended
%% for a second more is ended as it is; the message it is held up with is
%% counted, and Erlang sends it.
%%
%% Called by the process that started the run, this takes the message
%% `{msggen, Pid, Result}' out of its mailbox, also if the run was over already.
-spec stop(pid()) -> result().
stop(Pid) ->
    Answer = try
        msggen_run:stop(Pid)
    catch
        exit:{Reason, {gen_server, call, _}} -> {over, Reason}
    end,
    receive
        {msggen, Pid, Result} -> Result
    after 0 ->
        case Answer of
            {over, Why} -> exit(Why);
            _ -> Answer
        end
    end.

%% Internal.

-spec send_fun(dest()) -> fun((id(), binary()) -> term()).
send_fun(halley) -> fun halley:send/2;
send_fun(router) -> fun router:send/2;
send_fun({Name, Node} = Dest) when is_atom(Name), is_atom(Node) ->
    fun(Id, Text) -> Dest ! {Id, Text} end;
send_fun(Fun) when is_function(Fun, 2) -> Fun.

%% Due is counted from the start, and not from the last message: what a send
%% or a late timer took is made up for, and the rate holds.
-spec loop(fun((id(), binary()) -> term()), non_neg_integer(), non_neg_integer(),
    id(), integer()) -> ok.
loop(_, 0, _, _, _) ->
    ok;
loop(Send, Num, Interval, Max, Due) ->
    ok = sleep_until(Due),
    _ = Send(rand:uniform(Max), <<"Fake message Num = ", (integer_to_binary(Num))/binary>>),
    loop(Send, Num - 1, Interval, Max, Due + Interval).

-spec sleep_until(integer()) -> ok.
sleep_until(Due) ->
    case Due - erlang:monotonic_time(millisecond) of
        Wait when Wait > 0 -> timer:sleep(Wait);
        _ -> ok
    end.

-spec wait(pid(), reference(), fun((report()) -> term()) | none, pos_integer(), integer()) -> result().
wait(Pid, Monitor, Progress, Every, Next) ->
    Pause = case Progress of
        none -> infinity;
        _ -> max(0, Next - erlang:monotonic_time(millisecond))
    end,
    receive
        {msggen, Pid, Result} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> {error, {exit, Reason, []}}
    after Pause ->
        case so_far(Pid) of
            over -> wait(Pid, Monitor, none, Every, Next);
            Report -> _ = Progress(Report), wait(Pid, Monitor, Progress, Every, Next + Every)
        end
    end.

%% The run can end just now.
-spec so_far(pid()) -> report() | over.
so_far(Pid) ->
    try
        msggen_run:stats(Pid)
    catch
        exit:{_, {gen_server, call, _}} -> over
    end.

%% It has ended, or Progress raised and it must: no sender, message or link
%% stays behind.
-spec leave(pid(), reference()) -> ok.
leave(Pid, Monitor0) ->
    true = demonitor(Monitor0, [flush]),
    true = unlink(Pid),
    true = exit(Pid, shutdown),
    Monitor = monitor(process, Pid),
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end,
    receive
        {'EXIT', Pid, _} -> ok
    after 0 ->
        ok
    end,
    receive
        {msggen, Pid, _} -> ok
    after 0 ->
        ok
    end.
