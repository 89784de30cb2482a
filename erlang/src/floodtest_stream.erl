%% @private
%% @doc One response, read in pieces of any size: the head, then chunks (RFC
%% 9112, section 7.1), and the numbers that messages begin with.
%%
%% What it holds is bounded: by the head, or by one chunk.
-module(floodtest_stream).

-export([new/0]).
-export([feed/2]).

%% As much as a head, or the line of a chunk's size, may have.
-define(MAX_HEAD, 65536).
-define(MAX_LINE, 1024).
-define(MAX_CHUNK, 67108864).

%% So many digits stay within what is computed fast.
-define(MAX_DIGITS, 18).

-record(stream, {
    state = status :: status | headers | size | {chunk, Size :: pos_integer()} | trailer,
    chunked = false :: boolean(),
    %% What is not read yet.
    buffer = <<>> :: binary(),
    %% The number of the message before; 0: none.
    last = 0 :: non_neg_integer()
}).

-opaque stream() :: #stream{}.
-type counts() :: {Chunks :: non_neg_integer(), Messages :: non_neg_integer(), Unnumbered :: non_neg_integer(),
    Missing :: non_neg_integer(), Doubled :: non_neg_integer(), OutOfOrder :: non_neg_integer()}.
%% What was found in one piece. Messages are those with numbers.
-type phase() :: head | body | ended | {failed, Reason :: term()}.
-export_type([stream/0, counts/0, phase/0]).

-spec new() -> stream().
new() ->
    #stream{}.

%% @doc Read a piece. The phase is `body' once the head of a chunked stream is
%% complete, and `ended' after the last chunk. After `ended' and `failed' there
%% is nothing more to read.
-spec feed(binary(), stream()) -> {phase(), counts(), stream()}.
feed(Data, Stream = #stream{buffer = Buffer}) ->
    All = case Buffer of
        <<>> -> Data;
        _ -> <<Buffer/binary, Data/binary>>
    end,
    read(All, {0, 0, 0, 0, 0, 0}, Stream).

-spec read(binary(), counts(), stream()) -> {phase(), counts(), stream()}.
read(Data, Counts, Stream = #stream{state = status}) ->
    case erlang:decode_packet(http_bin, Data, []) of
        {ok, {http_response, {1, 1}, 200, _}, Rest} -> read(Rest, Counts, Stream#stream{state = headers});
        {ok, {http_response, _, Status, _}, _} -> {{failed, {status, Status}}, Counts, Stream};
        {more, _} -> more(Data, ?MAX_HEAD, bad_head, Counts, Stream);
        _ -> {{failed, bad_head}, Counts, Stream}
    end;
read(Data, Counts, Stream = #stream{state = headers, chunked = Chunked}) ->
    case erlang:decode_packet(httph_bin, Data, []) of
        {ok, {http_header, _, 'Transfer-Encoding', _, Value}, Rest} ->
            read(Rest, Counts, Stream#stream{chunked = string:lowercase(Value) =:= <<"chunked">>});
        {ok, {http_header, _, _, _, _}, Rest} -> read(Rest, Counts, Stream);
        {ok, http_eoh, Rest} when Chunked -> read(Rest, Counts, Stream#stream{state = size});
        {ok, http_eoh, _} -> {{failed, not_chunked}, Counts, Stream};
        {more, _} -> more(Data, ?MAX_HEAD, bad_head, Counts, Stream);
        _ -> {{failed, bad_head}, Counts, Stream}
    end;
read(Data, Counts, Stream = #stream{state = size}) ->
    case size(Data, 0, 0) of
        {0, Rest} -> read(Rest, Counts, Stream#stream{state = trailer});
        {Size, Rest} when Size =< ?MAX_CHUNK -> read(Rest, Counts, Stream#stream{state = {chunk, Size}});
        more -> more(Data, ?MAX_LINE, bad_chunk, Counts, Stream);
        _ -> {{failed, bad_chunk}, Counts, Stream}
    end;
read(Data, Counts0, Stream = #stream{state = {chunk, Size}, last = Last0}) ->
    case Data of
        <<Chunk:Size/binary, "\r\n", Rest/binary>> ->
            {Last, Counts} = message(numbers(Chunk), Last0, Counts0),
            read(Rest, Counts, Stream#stream{state = size, last = Last});
        _ when byte_size(Data) < Size + 2 ->
            more(Data, Size + 2, bad_chunk, Counts0, Stream);
        _ ->
            {{failed, bad_chunk}, Counts0, Stream}
    end;
read(Data, Counts, Stream = #stream{state = trailer}) ->
    case binary:split(Data, <<"\r\n">>) of
        [<<>>, <<>>] -> {ended, Counts, Stream};
        [<<>>, _] -> {{failed, bytes_after_the_end}, Counts, Stream};
        [_, Rest] -> read(Rest, Counts, Stream);
        [_] -> more(Data, ?MAX_LINE, bad_chunk, Counts, Stream)
    end.

%% Copied if little: a part of a binary keeps all of it in memory.
-spec more(binary(), pos_integer(), atom(), counts(), stream()) -> {phase(), counts(), stream()}.
more(Data, Max, Reason, Counts, Stream) when byte_size(Data) > Max ->
    {{failed, Reason}, Counts, Stream#stream{buffer = <<>>}};
more(Data, _, _, Counts, Stream = #stream{state = State}) ->
    Buffer = case byte_size(Data) of
        Size when Size < 512 -> binary:copy(Data);
        _ -> Data
    end,
    Phase = case State of
        status -> head;
        headers -> head;
        _ -> body
    end,
    {Phase, Counts, Stream#stream{buffer = Buffer}}.

%% The line before a chunk: its size, hexadecimal, and extensions, if any.
-spec size(binary(), non_neg_integer(), non_neg_integer()) -> {non_neg_integer(), binary()} | more | bad.
size(<<C, Rest/binary>>, Size, Digits) when C >= $0, C =< $9, Digits < 8 -> size(Rest, Size * 16 + C - $0, Digits + 1);
size(<<C, Rest/binary>>, Size, Digits) when C >= $a, C =< $f, Digits < 8 -> size(Rest, Size * 16 + C - $a + 10, Digits + 1);
size(<<C, Rest/binary>>, Size, Digits) when C >= $A, C =< $F, Digits < 8 -> size(Rest, Size * 16 + C - $A + 10, Digits + 1);
size(<<"\r\n", Rest/binary>>, Size, Digits) when Digits > 0 -> {Size, Rest};
size(<<C, Rest/binary>>, Size, Digits) when Digits > 0, C =:= $; orelse C =:= $\s ->
    case binary:split(Rest, <<"\r\n">>) of
        [_, After] -> {Size, After};
        [_] -> more
    end;
size(<<"\r">>, _, Digits) when Digits > 0 -> more;
size(<<>>, _, _) -> more;
size(_, _, _) -> bad.

%% `SEQ MICROS ' begins a numbered message; MICROS can also end it, or its line.
-spec numbers(binary()) -> non_neg_integer() | none.
numbers(Chunk) ->
    case number(Chunk, 0, 0) of
        {Seq, <<" ", Rest/binary>>} ->
            case number(Rest, 0, 0) of
                {_, <<C, _/binary>>} when C =:= $\s; C =:= $\n -> Seq;
                {_, <<>>} -> Seq;
                _ -> none
            end;
        _ ->
            none
    end.

-spec number(binary(), non_neg_integer(), non_neg_integer()) -> {non_neg_integer(), binary()} | none.
number(<<C, Rest/binary>>, N, Digits) when C >= $0, C =< $9, Digits < ?MAX_DIGITS ->
    number(Rest, N * 10 + C - $0, Digits + 1);
number(Rest, N, Digits) when Digits > 0 -> {N, Rest};
number(_, _, _) -> none.

%% As `halley flood' counts: 0 is in no order, the first number may be any, and
%% one that comes too late does not move the mark.
-spec message(non_neg_integer() | none, non_neg_integer(), counts()) -> {non_neg_integer(), counts()}.
message(none, Last, {Chunks, Messages, Unnumbered, Missing, Doubled, Order}) ->
    {Last, {Chunks + 1, Messages, Unnumbered + 1, Missing, Doubled, Order}};
message(Seq, Last, {Chunks, Messages, Unnumbered, Missing, Doubled, Order}) ->
    if
        Seq =:= 0 -> {Last, {Chunks + 1, Messages + 1, Unnumbered, Missing, Doubled, Order}};
        Last =:= 0; Seq =:= Last + 1 -> {Seq, {Chunks + 1, Messages + 1, Unnumbered, Missing, Doubled, Order}};
        Seq =:= Last -> {Last, {Chunks + 1, Messages + 1, Unnumbered, Missing, Doubled + 1, Order}};
        Seq < Last -> {Last, {Chunks + 1, Messages + 1, Unnumbered, Missing, Doubled, Order + 1}};
        true -> {Seq, {Chunks + 1, Messages + 1, Unnumbered, Missing + Seq - Last - 1, Doubled, Order}}
    end.
