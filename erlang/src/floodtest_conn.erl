%% @private
%% @doc One connection of floodtest: it opens, asks, and reads until the end.
%%
%% It ends with `{shutdown, Reason}', where Reason says how the stream ended.
-module(floodtest_conn).

-export([start_link/1]).

-type config() :: #{
    parent := pid(),
    address := inet:ip_address(),
    port := inet:port_number(),
    from := inet:ip_address() | any,
    request := iodata(),
    timeout := pos_integer(),
    %% Chunks, bytes, messages, unnumbered, missing, doubled, out of order.
    counters := counters:counters_ref()
}.
-export_type([config/0]).

%% @doc The parent gets `{opened, Pid}' when the stream's head has come.
-spec start_link(config()) -> pid().
start_link(Config) ->
    spawn_link(fun() -> exit({shutdown, connect(Config)}) end).

-spec connect(config()) -> Reason :: term().
connect(Config = #{address := Address, port := Port, from := From, request := Request, timeout := Timeout}) ->
    Source = case From of
        any -> [];
        _ -> [{ip, From}, {reuseaddr, true}]
    end,
    Family = case tuple_size(Address) of
        4 -> inet;
        8 -> inet6
    end,
    Options = [Family, binary, {active, false}, {packet, raw}, {nodelay, true} | Source],
    case gen_tcp:connect(Address, Port, Options, Timeout) of
        {ok, Socket} ->
            case gen_tcp:send(Socket, Request) of
                ok -> head(Socket, floodtest_stream:new(), erlang:monotonic_time(millisecond) + Timeout, Config);
                {error, Reason} -> Reason
            end;
        {error, Reason} ->
            Reason
    end.

%% The head has its time as a whole, the stream has not: it may be silent.
-spec head(gen_tcp:socket(), floodtest_stream:stream(), integer(), config()) -> Reason :: term().
head(Socket, Stream0, Until, Config = #{parent := Parent}) ->
    case gen_tcp:recv(Socket, 0, max(0, Until - erlang:monotonic_time(millisecond))) of
        {ok, Data} ->
            case feed(Data, Stream0, Config) of
                {head, Stream} ->
                    head(Socket, Stream, Until, Config);
                {{failed, Reason}, _} ->
                    Reason;
                {Phase, Stream} ->
                    Parent ! {opened, self()},
                    body(Phase, Socket, Stream, Config)
            end;
        {error, Reason} ->
            Reason
    end.

-spec body(floodtest_stream:phase(), gen_tcp:socket(), floodtest_stream:stream(), config()) -> Reason :: term().
body(body, Socket, Stream0, Config) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} ->
            {Phase, Stream} = feed(Data, Stream0, Config),
            body(Phase, Socket, Stream, Config);
        {error, closed} ->
            %% Without its last chunk.
            broken;
        {error, Reason} ->
            Reason
    end;
body({failed, Reason}, _, _, _) ->
    Reason;
body(ended, _, _, _) ->
    ended.

-spec feed(binary(), floodtest_stream:stream(), config()) -> {floodtest_stream:phase(), floodtest_stream:stream()}.
feed(Data, Stream0, #{counters := Counters}) ->
    {Phase, {Chunks, Messages, Unnumbered, Missing, Doubled, OutOfOrder}, Stream} = floodtest_stream:feed(Data, Stream0),
    ok = add(Counters, 1, [Chunks, byte_size(Data), Messages, Unnumbered, Missing, Doubled, OutOfOrder]),
    {Phase, Stream}.

-spec add(counters:counters_ref(), pos_integer(), [non_neg_integer()]) -> ok.
add(_, _, []) ->
    ok;
add(Counters, Index, [0 | Rest]) ->
    add(Counters, Index + 1, Rest);
add(Counters, Index, [N | Rest]) ->
    ok = counters:add(Counters, Index, N),
    add(Counters, Index + 1, Rest).
