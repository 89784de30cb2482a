%% @doc The flood client of "A Million-user Comet Application with Mochiweb".
%%
%% It opens HTTP streams, keeps them, and prints `{Open, Closed, Chunks, Bytes}'
%% every ten seconds. It checks the numbers of messages that `msggen:run/1'
%% sends, too:
%% ```
%% {ok, Pid} = floodtest:start("http://localhost:8000/test/", 1000).
%% {ok, _} = msggen:run(#{dest => {httpd, 'halley@host'}, uids => {1, 1000}, rate => 5000, duration => 10000}).
%% #{missing := 0, doubled := 0, out_of_order := 0} = floodtest:stop(Pid).
%% '''
%% It is for those who want an Erlang client: a process and a socket for each
%% stream, 12 KB. `halley flood' needs 48 bytes, is faster, and knows latencies.
-module(floodtest).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

%% API.
-export([start/1]).
-export([start/2]).
-export([start/3]).
-export([stats/1]).
-export([stop/1]).

%% gen_server.
-export([init/1]).
-export([handle_call/3]).
-export([handle_cast/2]).
-export([handle_info/2]).
-export([terminate/2]).

-define(MAX_UID, 16#7FFFFFFFFFFFFFFF).

%% As many as a process table can be made to hold.
-define(MAX_CONNECTIONS, 134217727).

-type options() :: #{
    url := string() | binary(),
    connections => pos_integer(),
    uids => {First :: pos_integer(), Last :: pos_integer()},
    rate => number() | infinity,
    opening => pos_integer(),
    from => [inet:ip_address()],
    timeout => pos_integer(),
    report => fun((tuple_of_four()) -> term()) | none,
    every => pos_integer()
}.
-type tuple_of_four() :: {Open :: non_neg_integer(), Closed :: non_neg_integer(), Chunks :: non_neg_integer(),
    Bytes :: non_neg_integer()}.
%% As floodtest2 of the articles printed it. Closed are all that are not open any more, or failed to open.
-type stats() :: #{
    connections := pos_integer(),
    opening := non_neg_integer(),
    open := non_neg_integer(),
    closed := non_neg_integer(),
    reasons := #{Reason :: term() => pos_integer()},
    chunks := non_neg_integer(),
    bytes := non_neg_integer(),
    messages := non_neg_integer(),
    unnumbered := non_neg_integer(),
    missing := non_neg_integer(),
    doubled := non_neg_integer(),
    out_of_order := non_neg_integer()
}.
-export_type([options/0, stats/0, tuple_of_four/0]).

-record(state, {
    config :: floodtest_conn:config(),
    url :: {Before :: binary(), After :: binary()},
    host :: iodata(),
    connections :: pos_integer(),
    uids :: {pos_integer(), pos_integer()},
    from :: [inet:ip_address() | any],
    %% Connection N, counted from 0, is due at start + N * interval microseconds.
    start :: integer(),
    interval :: float() | none,
    most :: pos_integer(),
    started = 0 :: non_neg_integer(),
    opening = #{} :: #{pid() => []},
    open = #{} :: #{pid() => []},
    reasons = #{} :: #{term() => pos_integer()},
    report :: fun((tuple_of_four()) -> term()) | none,
    every :: pos_integer(),
    next_report :: integer()
}).

-type state() :: #state{}.

%% API.

%% @doc Open Num streams as fast as it goes: BaseUrl followed by 1, 2 and so on.
-spec start(BaseUrl :: string() | binary(), Num :: pos_integer()) -> {ok, pid()}.
start(BaseUrl, Num) ->
    start(#{url => BaseUrl, connections => Num}).

%% @doc The same, one every Interval milliseconds.
-spec start(BaseUrl :: string() | binary(), Num :: pos_integer(), Interval :: non_neg_integer()) -> {ok, pid()}.
start(BaseUrl, Num, 0) ->
    start(BaseUrl, Num);
start(BaseUrl, Num, Interval) when is_integer(Interval), Interval > 0 ->
    start(#{url => BaseUrl, connections => Num, rate => 1000 / Interval}).

%% @doc The same, with options.
%%
%% <dl>
%% <dt>`url'</dt><dd>What to open, `http' only. `{uid}' in it is replaced by the uid; without, the uid follows.</dd>
%% <dt>`connections'</dt><dd>How many, 1000.</dd>
%% <dt>`uids'</dt><dd>Given out in turn; one for each connection, from 1, if not given.</dd>
%% <dt>`rate'</dt><dd>Connections opened a second; `infinity', as fast as it goes, if not given.</dd>
%% <dt>`opening'</dt><dd>At most so many are opening at a time, 100.</dd>
%% <dt>`from'</dt><dd>Source addresses, taken in turn: each has its own ports, some 28,000 as Linux comes.</dd>
%% <dt>`timeout'</dt><dd>Milliseconds to connect in, and then to get the response's head in, 10000.</dd>
%% <dt>`report', `every'</dt><dd>What to do with the tuple each `every' milliseconds (10000); it is printed if
%% not given.</dd>
%% </dl>
%% It is linked to the caller, and the connections to it: all are closed when
%% either ends. A bad option is an error: `{bad_option, Key, Value, Expected}'.
%% So is a host that has no address: `{bad_host, Host, Reason}'.
-spec start(options()) -> {ok, pid()}.
start(Options0) ->
    Options = halley_options:check(Options0, rules()),
    Url = target(maps:get(url, Options)),
    {ok, Pid} = gen_server:start_link(?MODULE, {Options, Url}, []),
    {ok, Pid}.

%% @doc What was opened and read so far.
%%
%% `reasons' counts why those that are closed are: `ended', with the last chunk; `broken', without; `{status, Status}';
%% `not_chunked', `bad_head', `bad_chunk', `bytes_after_the_end'; `closed' before the head; or what the system
%% says: `econnrefused', `timeout', `emfile' and so on.
%%
%% Bytes are all that were read. Messages are chunks that begin with numbers, `unnumbered' those that do not;
%% in a stream the first number may be any.
-spec stats(pid()) -> stats().
stats(Pid) ->
    gen_server:call(Pid, stats, infinity).

%% @doc Close all, and tell what was read.
-spec stop(pid()) -> stats().
stop(Pid) ->
    gen_server:call(Pid, stop, infinity).

%% gen_server.

-spec init({map(), {inet:ip_address(), inet:port_number(), iodata(), {binary(), binary()}}}) -> {ok, state()}.
init({Options, {Address, Port, Host, Url}}) ->
    %% The end of a connection comes as a message.
    _ = process_flag(trap_exit, true),
    #{connections := Connections, rate := Rate, every := Every} = Options,
    State = #state{
        config = #{
            parent => self(),
            address => Address,
            port => Port,
            from => any,
            request => [],
            timeout => maps:get(timeout, Options),
            counters => counters:new(7, [write_concurrency])
        },
        url = Url,
        host = Host,
        connections = Connections,
        uids = case maps:get(uids, Options) of
            undefined -> {1, Connections};
            Uids -> Uids
        end,
        from = case maps:get(from, Options) of
            [] -> [any];
            From -> From
        end,
        start = erlang:monotonic_time(microsecond),
        interval = if Rate =:= infinity -> none; true -> 1.0e6 / Rate end,
        most = maps:get(opening, Options),
        report = maps:get(report, Options),
        every = Every,
        next_report = erlang:monotonic_time(millisecond) + Every
    },
    _ = erlang:start_timer(State#state.next_report, self(), report, [{abs, true}]),
    self() ! {timeout, none, open},
    {ok, State}.

-spec handle_call(term(), gen_server:from(), state()) ->
    {reply, term(), state()} | {stop, normal, stats(), state()}.
handle_call(stats, _From, State) ->
    {reply, all_stats(State), State};
handle_call(stop, _From, State0) ->
    State = close(State0),
    %% Read to the end, and what was open then counts as open.
    {stop, normal, all_stats(State0), State};
handle_call(Request, From, State) ->
    ?LOG_WARNING("floodtest: odd request ~tp from ~tp", [Request, From]),
    {reply, {error, {bad_request, Request}}, State}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(Message, State) ->
    ?LOG_WARNING("floodtest: odd message ~tp", [Message]),
    {noreply, State}.

-spec handle_info(term(), state()) -> {noreply, state()} | {stop, term(), state()}.
handle_info({opened, Pid}, State = #state{opening = Opening, open = Open}) ->
    {noreply, fill(State#state{opening = maps:remove(Pid, Opening), open = Open#{Pid => []}})};
handle_info({'EXIT', Pid, Reason}, State = #state{opening = Opening, open = Open}) when
        is_map_key(Pid, Opening); is_map_key(Pid, Open) ->
    {noreply, fill(ended(Pid, Reason, State))};
handle_info({'EXIT', _, Reason}, State) ->
    {stop, Reason, State};
handle_info({timeout, _, open}, State0) ->
    State = fill(State0),
    ok = open_later(State),
    {noreply, State};
handle_info({timeout, _, report}, State = #state{next_report = Before, every = Every}) ->
    ok = report(State),
    Next = Before + Every,
    _ = erlang:start_timer(Next, self(), report, [{abs, true}]),
    {noreply, State#state{next_report = Next}};
handle_info(Message, State) ->
    ?LOG_WARNING("floodtest: odd message ~tp", [Message]),
    {noreply, State}.

-spec terminate(term(), state()) -> ok.
terminate(_Reason, State) ->
    _ = close(State),
    ok.

%% Opening.

%% As many as are due and as may be opening at a time: when one is open or has
%% failed, the next follows.
-spec fill(state()) -> state().
fill(State = #state{started = Started, opening = Opening, most = Most}) ->
    case Started < due(State) andalso map_size(Opening) < Most of
        true -> fill(open(State));
        false -> State
    end.

-spec due(state()) -> non_neg_integer().
due(#state{connections = Connections, interval = none}) ->
    Connections;
due(#state{connections = Connections, start = Start, interval = Interval}) ->
    min(Connections, trunc((erlang:monotonic_time(microsecond) - Start) / Interval) + 1).

-spec open(state()) -> state().
open(State = #state{config = Config, started = N, opening = Opening, uids = {First, Last}, from = From, url = Url}) ->
    {Before, After} = Url,
    Uid = integer_to_binary(First + N rem (Last - First + 1)),
    Pid = floodtest_conn:start_link(Config#{
        from := lists:nth(1 + N rem length(From), From),
        request := ["GET ", Before, Uid, After, " HTTP/1.1\r\nHost: ", State#state.host, "\r\n\r\n"]
    }),
    State#state{started = N + 1, opening = Opening#{Pid => []}}.

%% A timer only for what is not due yet; what waits for others to be open comes
%% with them.
-spec open_later(state()) -> ok.
open_later(State = #state{connections = Connections, start = Start, interval = Interval}) ->
    case due(State) of
        Connections ->
            ok;
        Due ->
            Us = Start + ceil(Due * Interval) - erlang:monotonic_time(microsecond),
            _ = erlang:start_timer(max(1, min(3600000, (Us + 999) div 1000)), self(), open),
            ok
    end.

-spec ended(pid(), term(), state()) -> state().
ended(Pid, Reason0, State = #state{opening = Opening, open = Open, reasons = Reasons}) ->
    Reason = case Reason0 of
        {shutdown, Why} -> Why;
        _ -> Reason0
    end,
    State#state{
        opening = maps:remove(Pid, Opening),
        open = maps:remove(Pid, Open),
        reasons = maps:update_with(Reason, fun(N) -> N + 1 end, 1, Reasons)
    }.

%% A socket is closed when its process is gone.
-spec close(state()) -> state().
close(State = #state{opening = Opening, open = Open}) ->
    Pids = maps:keys(Opening) ++ maps:keys(Open),
    lists:foreach(fun(Pid) -> exit(Pid, kill) end, Pids),
    lists:foreach(fun(Pid) ->
        receive
            {'EXIT', Pid, _} -> ok
        end
    end, Pids),
    State#state{opening = #{}, open = #{}}.

%% Figures.

-spec all_stats(state()) -> stats().
all_stats(State = #state{config = #{counters := Counters}}) ->
    {Open, Closed, Chunks, Bytes} = four(State),
    #{
        connections => State#state.connections,
        opening => map_size(State#state.opening),
        open => Open,
        closed => Closed,
        reasons => State#state.reasons,
        chunks => Chunks,
        bytes => Bytes,
        messages => counters:get(Counters, 3),
        unnumbered => counters:get(Counters, 4),
        missing => counters:get(Counters, 5),
        doubled => counters:get(Counters, 6),
        out_of_order => counters:get(Counters, 7)
    }.

-spec four(state()) -> tuple_of_four().
four(#state{open = Open, reasons = Reasons, config = #{counters := Counters}}) ->
    {map_size(Open), lists:sum(maps:values(Reasons)), counters:get(Counters, 1), counters:get(Counters, 2)}.

-spec report(state()) -> ok.
report(#state{report = none}) ->
    ok;
report(State = #state{report = Report}) ->
    _ = Report(four(State)),
    ok.

%% Options.

-spec rules() -> [halley_options:rule()].
rules() ->
    [
        {url, undefined, fun is_url/1, "http://HOST[:PORT]/PATH, with {uid} or to be followed by it"},
        {connections, 1000, fun(N) -> is_within(N, 1, ?MAX_CONNECTIONS) end, "1 to 134217727"},
        {uids, undefined, fun is_uids/1, "{First, Last} with First from 1"},
        {rate, infinity, fun(Rate) -> Rate =:= infinity orelse is_number(Rate) andalso Rate > 0 end,
            "a number greater than 0, connections a second, or infinity"},
        {opening, 100, fun(N) -> is_within(N, 1, ?MAX_CONNECTIONS) end, "1 to 134217727"},
        {from, [], fun is_from/1, "a list of IP addresses as tuples"},
        {timeout, 10000, fun(Ms) -> is_within(Ms, 1, 16#FFFFFFFF) end, "1 to 4294967295 milliseconds"},
        {report, fun print/1, fun(Report) -> Report =:= none orelse is_function(Report, 1) end,
            "a fun of one argument, or none"},
        {every, 10000, fun(Ms) -> is_within(Ms, 1, 16#FFFFFFFF) end, "1 to 4294967295 milliseconds"}
    ].

-spec print(tuple_of_four()) -> ok.
print(Four) ->
    io:format("~w~n", [Four]).

%% The address is looked up once, and not by each connection.
-spec target(undefined | string() | binary()) ->
    {inet:ip_address(), inet:port_number(), iodata(), {binary(), binary()}}.
target(undefined) ->
    halley_options:bad(url, undefined, "http://HOST[:PORT]/PATH, with {uid} or to be followed by it");
target(Url) ->
    {match, [HostPort, Host, Port, Path0]} = re:run(Url, url(), [{capture, all_but_first, binary}, unicode]),
    Path = case Path0 of
        <<>> -> <<"/">>;
        _ -> Path0
    end,
    {Before, After} = case binary:split(Path, <<"{uid}">>) of
        [_] -> {Path, <<>>};
        [A, B] -> {A, B}
    end,
    Number = case Port of
        <<>> -> 80;
        _ -> binary_to_integer(Port)
    end,
    {address(binary_to_list(Host)), Number, HostPort, {Before, After}}.

-spec address(string()) -> inet:ip_address().
address("[" ++ Host) ->
    {ok, Address} = inet:parse_ipv6_address(lists:droplast(Host)),
    Address;
address(Host) ->
    case inet:getaddr(Host, inet) of
        {ok, Address} -> Address;
        {error, Reason} -> error({bad_host, Host, Reason})
    end.

%% Host and port together and alone, and the path; no user, no fragment, and
%% nothing that would not fit in a request's first line.
-spec url() -> string().
url() ->
    "\\Ahttp://((\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?)((?:/[!-\"$-~]*)?)\\z".

-spec is_url(term()) -> boolean().
is_url(Url) ->
    try re:run(Url, url(), [{capture, all_but_first, list}, unicode]) of
        {match, [_, Host, Port | _]} ->
            (Port =:= "" orelse is_within(list_to_integer(Port), 1, 65535)) andalso
                (hd(Host) =/= $[ orelse element(1, inet:parse_ipv6_address(tl(lists:droplast(Host)))) =:= ok);
        nomatch ->
            false
    catch
        error:_ -> false
    end.

-spec is_within(term(), integer(), integer()) -> boolean().
is_within(N, Min, Max) -> is_integer(N) andalso N >= Min andalso N =< Max.

-spec is_uids(term()) -> boolean().
is_uids({First, Last}) -> is_within(First, 1, ?MAX_UID) andalso is_within(Last, First, ?MAX_UID);
is_uids(_) -> false.

-spec is_from(term()) -> boolean().
is_from(From) -> is_list(From) andalso lists:all(fun inet:is_ip_address/1, From).
