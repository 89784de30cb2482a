%% The articles' flood client, against a server that says exactly what a case
%% wants it to say.
-module(floodtest_SUITE).

-export([all/0]).
-export([suite/0]).
-export([groups/0]).

%% stream.
-export([every_cut/1]).
-export([sizes/1]).
-export([numbers/1]).
-export([order/1]).
-export([bad_streams/1]).
-export([bounds/1]).

%% client.
-export([opens_all/1]).
-export([uids/1]).
-export([request/1]).
-export([counts/1]).
-export([many_chunks/1]).
-export([reasons/1]).
-export([opening/1]).
-export([rate/1]).
-export([interval/1]).
-export([source_addresses/1]).
-export([report/1]).
-export([printed/1]).
-export([stop/1]).
-export([owner_ends/1]).
-export([odd_messages/1]).
-export([bad_options/1]).

-import(halley_test, [doc/1, do_eventually/1]).

-define(HEAD, "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n").

%% What hangs fails soon.
suite() ->
    [{timetrap, {seconds, 60}}].

all() ->
    [{group, Group} || {Group, _, _} <- groups()].

groups() ->
    [
        {stream, [], [every_cut, sizes, numbers, order, bad_streams, bounds]},
        {client, [], [opens_all, uids, request, counts, many_chunks, reasons, opening, rate, interval,
            source_addresses, report, printed, stop, owner_ends, odd_messages, bad_options]}
    ].

%% Streams.

every_cut(_) ->
    doc("A response read in pieces is the same as read in one, wherever it is cut."),
    Text = iolist_to_binary([?HEAD, do_chunk("Welcome"), do_chunk("1 17 x"), "2A;a=b\r\n", lists:duplicate(42, $5), "\r\n",
        do_chunk("4 18 \r\n0\r\n"), do_chunk("4 19"), do_chunk("3 20\n"), "000\r\nTrailer: x\r\n\r\n"]),
    Want = {ended, {6, 4, 2, 2, 1, 1}},
    Want = do_feed([Text]),
    Want = do_feed([<<B>> || <<B>> <= Text]),
    [Want = do_feed([binary:part(Text, 0, N), binary:part(Text, N, byte_size(Text) - N)])
        || N <- lists:seq(1, byte_size(Text) - 1)],
    %% Until the last byte it has not ended; the head and the body are told apart.
    [{N, body} = {N, element(1, do_feed([binary:part(Text, 0, N)]))} || N <- lists:seq(length(?HEAD), byte_size(Text) - 1)],
    [{N, head} = {N, element(1, do_feed([binary:part(Text, 0, N)]))} || N <- lists:seq(1, length(?HEAD) - 1)].

sizes(_) ->
    doc("Sizes are hexadecimal, in either case, with leading zeros; extensions are passed over."),
    [{Line, {body, {1, 0, 1, 0, 0, 0}}} =
        {Line, do_feed([?HEAD, Line, "\r\n", binary:copy(<<"x">>, Size), "\r\n"])}
        || {Line, Size} <- [{"1", 1}, {"a", 10}, {"A", 10}, {"1f", 31}, {"0000001F", 31}, {"10000", 65536},
            {"5;name=\"v\"", 5}, {"5 ", 5}, {"5 ; x", 5}]].

numbers(_) ->
    doc("A numbered message begins with two numbers and spaces; the second may end it or its line."),
    [{Chunk, Messages} = {Chunk, element(2, element(2, do_feed([?HEAD, do_chunk(Chunk)])))} || {Chunk, Messages} <- [
        {"1 2 ", 1}, {"1 2 text", 1}, {"1 2", 1}, {"1 2\n", 1}, {"1 2\ntext", 1}, {"0 0 ", 1},
        {"999999999999999999 999999999999999999 ", 1},
        {"1000000000000000000 1 ", 0}, {"1 1000000000000000000 ", 0},
        {"1", 0}, {"1 ", 0}, {"1 a", 0}, {"1 2a", 0}, {"1  2 ", 0}, {" 1 2 ", 0}, {"-1 2 ", 0}, {"1 2\r\n", 0},
        {"Welcome, Url: '/test/1' Id: 1\n", 0}
    ]].

order(_) ->
    doc("Missing, doubled and reordered numbers are counted; the first may be any, 0 is in no order."),
    [{Seqs, Want} = {Seqs, do_order(Seqs)} || {Seqs, Want} <- [
        {[1, 2, 3], {0, 0, 0}},
        {[7, 8, 9], {0, 0, 0}},
        {[1, 3], {1, 0, 0}},
        {[1, 10], {8, 0, 0}},
        {[1, 1], {0, 1, 0}},
        {[1, 1, 1, 2], {0, 2, 0}},
        {[2, 1], {0, 0, 1}},
        {[1, 3, 2, 4], {1, 0, 1}},
        {[5, 1, 2, 3, 6], {0, 0, 3}},
        {[5, 0, 6], {0, 0, 0}}, % 0 is in no order
        {[0, 1, 0, 3], {1, 0, 0}}
    ]].

do_order(Seqs) ->
    {body, {_, N, 0, Missing, Doubled, OutOfOrder}} =
        do_feed([?HEAD | [do_chunk(integer_to_list(Seq) ++ " 1 x") || Seq <- Seqs]]),
    N = length(Seqs),
    {Missing, Doubled, OutOfOrder}.

bad_streams(_) ->
    doc("What is no chunked stream fails, with a reason, in one piece and byte by byte."),
    [begin
        Text = iolist_to_binary(List),
        {Text, {failed, Reason}} = {Text, element(1, do_feed([Text]))},
        {Text, {failed, Reason}} = {Text, element(1, do_feed([<<B>> || <<B>> <= Text]))}
    end || {List, Reason} <- [
        {"HTTP/1.1 404 Not Found\r\n\r\n", {status, 404}},
        {"HTTP/1.1 503 We ran out of numbers\r\n\r\n", {status, 503}},
        {"HTTP/1.0 200 OK\r\n\r\n", {status, 200}},
        {"GET / HTTP/1.1\r\n\r\n", bad_head},
        {"hello\r\n", bad_head},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", not_chunked},
        {"HTTP/1.1 200 OK\r\nno header\r\n\r\n", bad_head},
        {[?HEAD, "x\r\n"], bad_chunk},
        {[?HEAD, "\r\n"], bad_chunk},
        {[?HEAD, "-1\r\n"], bad_chunk},
        {[?HEAD, "+1\r\n"], bad_chunk},
        {[?HEAD, "1\rx"], bad_chunk},
        {[?HEAD, "1\n"], bad_chunk},
        {[?HEAD, "000000001\r\n"], bad_chunk},
        {[?HEAD, "1\r\nxxx"], bad_chunk},
        {[?HEAD, "1\r\nx\rx"], bad_chunk}
    ]],
    {{failed, bytes_after_the_end}, _} = do_feed([?HEAD, "0\r\n\r\nx"]),
    ok.

bounds(_) ->
    doc("Heads, lines and chunks that do not end are not collected for ever."),
    [{failed, Reason} = element(1, do_feed([Text])) || {Text, Reason} <- [
        {["HTTP/1.1 200 OK\r\nX: ", binary:copy(<<"x">>, 65536)], bad_head},
        {[?HEAD, "1;", binary:copy(<<"x">>, 1024)], bad_chunk},
        {[?HEAD, "0\r\n", binary:copy(<<"x">>, 1025)], bad_chunk},
        {[?HEAD, "4000001\r\n"], bad_chunk},
        {[?HEAD, "ffffffff\r\n"], bad_chunk}
    ]],
    body = element(1, do_feed([?HEAD, "4000000\r\n"])).

%% The client.

opens_all(_) ->
    doc("start/2 opens Num streams, uids from 1, and keeps them."),
    Server = do_serve(fun do_welcome/2),
    {ok, Pid} = floodtest:start(do_url(Server), 250),
    ok = do_eventually(fun() -> do_open(Pid, 250) end),
    #{connections := 250, opening := 0, closed := 0, reasons := Reasons, chunks := 250, unnumbered := 250,
        messages := 0, bytes := Bytes} = floodtest:stats(Pid),
    0 = map_size(Reasons),
    %% All that was read: head, and a chunk with the uid in it.
    Bytes = lists:sum([iolist_size([?HEAD, do_chunk("Welcome " ++ integer_to_list(Uid))]) || Uid <- lists:seq(1, 250)]),
    Uids = lists:seq(1, 250),
    Uids = lists:sort(do_uids(Server)),
    #{open := 250} = floodtest:stop(Pid),
    ok = do_end(Server).

uids(_) ->
    doc("uids are given out in turn, and {uid} in the URL is where they go."),
    Server = do_serve(fun do_welcome/2),
    {ok, Pid} = floodtest:start(#{url => do_base(Server) ++ "/stream/{uid}?x=1", connections => 7, uids => {5, 7}}),
    ok = do_eventually(fun() -> do_open(Pid, 7) end),
    ["/stream/5?x=1", "/stream/5?x=1", "/stream/5?x=1", "/stream/6?x=1", "/stream/6?x=1", "/stream/7?x=1", "/stream/7?x=1"] =
        lists:sort(do_paths(Server)),
    _ = floodtest:stop(Pid),
    ok = do_end(Server).

request(_) ->
    doc("The request is a GET of HTTP/1.1, with the host as it was given."),
    Self = self(),
    Server = #{port := Port} = do_serve(fun(Socket, _) ->
        Self ! {headers, get(headers)},
        do_send(Socket, ?HEAD)
    end),
    [begin
        Url = "http://" ++ Host ++ ":" ++ integer_to_list(Port),
        {ok, Pid} = floodtest:start(list_to_binary(Url ++ Path), 1),
        Want = list_to_binary(Host ++ ":" ++ integer_to_list(Port)),
        receive
            {headers, Headers} -> [{'Host', Want}] = [Header || {'Host', _} = Header <- Headers]
        after 5000 ->
            error(no_request)
        end,
        _ = floodtest:stop(Pid)
    end || Host <- ["127.0.0.1", "localhost"], Path <- ["/test/", ""]],
    ["/1", "/1", "/test/1", "/test/1"] = lists:sort(do_paths(Server)),
    ok = do_end(Server).

counts(_) ->
    doc("Messages are counted and checked on each stream by itself."),
    Server = do_serve(fun(Socket, Uid) ->
        %% Of each stream another story.
        Seqs = case Uid of
            1 -> [1, 2, 3];
            2 -> [1, 2, 5];
            3 -> [1, 1, 2];
            4 -> [2, 1, 3]
        end,
        do_send(Socket, [?HEAD, do_chunk("Welcome") | [do_chunk(integer_to_list(Seq) ++ " 1795244169505252 x") || Seq <- Seqs]])
    end),
    {ok, Pid} = floodtest:start(do_url(Server), 4),
    ok = do_eventually(fun() -> do_has(Pid, chunks, 16) end),
    #{messages := 12, unnumbered := 4, missing := 2, doubled := 1, out_of_order := 1, open := 4} = floodtest:stop(Pid),
    ok = do_end(Server).

many_chunks(_) ->
    doc("Many chunks of all sizes on several streams: all are read."),
    Sizes = [19 + N * N rem 5003 || N <- lists:seq(1, 500)] ++ [1000000],
    Server = do_serve(fun(Socket, _) ->
        Text = iolist_to_binary([do_chunk(string:pad(integer_to_list(Seq) ++ " 1 ", Size))
            || {Seq, Size} <- lists:zip(lists:seq(1, length(Sizes)), Sizes)]),
        do_send(Socket, ?HEAD),
        do_send_pieces(Socket, Text, 1)
    end),
    {ok, Pid} = floodtest:start(do_url(Server), 5),
    ok = do_eventually(fun() -> do_has(Pid, chunks, 5 * length(Sizes)) end),
    #{messages := Messages, unnumbered := 0, missing := 0, doubled := 0, out_of_order := 0, bytes := Bytes, open := 5} =
        floodtest:stop(Pid),
    Messages = 5 * length(Sizes),
    true = Bytes > 5 * lists:sum(Sizes),
    ok = do_end(Server).

reasons(_) ->
    doc("Why streams ended, or did not begin, is counted by reason; the others go on."),
    Server = do_serve(fun(Socket, Uid) ->
        case Uid of
            1 -> do_send(Socket, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            2 -> do_send(Socket, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            3 -> do_send(Socket, [?HEAD, do_chunk("x"), "0\r\n\r\n"]);
            4 -> do_send(Socket, [?HEAD, do_chunk("x"), "5\r\nhal"]), gen_tcp:close(Socket);
            5 -> gen_tcp:close(Socket);
            6 -> do_send(Socket, [?HEAD, "hello\r\n"]);
            7 -> ok;
            8 -> do_send(Socket, "HTTP/1.1 200 O");
            _ -> do_send(Socket, ?HEAD)
        end
    end),
    {ok, Pid} = floodtest:start(#{url => do_url(Server), connections => 12, timeout => 500}),
    ok = do_eventually(fun() -> do_has(Pid, closed, 8) end),
    #{open := 4, opening := 0, closed := 8, chunks := 2, reasons := Reasons} = floodtest:stop(Pid),
    Want = #{{status, 404} => 1, not_chunked => 1, ended => 1, broken => 1, closed => 1, bad_chunk => 1, timeout => 2},
    {Want, Want} = {Reasons, Want},
    ok = do_end(Server),
    %% Nobody listens there any more.
    {ok, Pid1} = floodtest:start(do_url(Server), 300),
    ok = do_eventually(fun() -> do_has(Pid1, closed, 300) end),
    #{open := 0, opening := 0, reasons := Reasons1} = floodtest:stop(Pid1),
    [{econnrefused, 300}] = maps:to_list(Reasons1).

opening(_) ->
    doc("No more than `opening' are on the way at a time; when one is open, or has failed, the next begins."),
    Self = self(),
    Server = do_serve(fun(Socket, Uid) ->
        Self ! {asked, self()},
        receive
            answer when Uid rem 3 =:= 0 -> do_send(Socket, "HTTP/1.1 500 No\r\n\r\n");
            answer -> do_send(Socket, ?HEAD)
        end
    end),
    {ok, Pid} = floodtest:start(#{url => do_url(Server), connections => 30, opening => 5}),
    First = [do_asked() || _ <- lists:seq(1, 5)],
    ok = receive {asked, _} -> error(sixth) after 200 -> ok end,
    #{opening := 5, open := 0, closed := 0} = floodtest:stats(Pid),
    [begin
        Asked ! answer,
        ok
    end || Asked <- First],
    [do_asked() ! answer || _ <- lists:seq(6, 30)],
    ok = do_eventually(fun() -> do_has(Pid, opening, 0) end),
    #{open := 20, closed := 10} = floodtest:stop(Pid),
    ok = do_end(Server).

do_asked() ->
    receive
        {asked, Pid} -> Pid
    after 5000 ->
        error(nobody_asks)
    end.

rate(_) ->
    doc("rate connections a second, each when it is due and none before."),
    Server = do_serve(fun do_welcome/2),
    Start = erlang:monotonic_time(millisecond),
    {ok, Pid} = floodtest:start(#{url => do_url(Server), connections => 40, rate => 100}),
    ok = do_eventually(fun() -> do_open(Pid, 40) end),
    Times = [Time - Start || Time <- lists:sort(do_times(Server))],
    [] = [{N, Time} || {N, Time} <- lists:zip(lists:seq(0, 39), Times), Time < N * 10],
    true = hd(Times) < 200,
    true = lists:last(Times) < 390 + 500,
    _ = floodtest:stop(Pid),
    ok = do_end(Server).

interval(_) ->
    doc("start/3 opens one every Interval ms, as in the articles; 0 is as fast as it goes."),
    Server = do_serve(fun do_welcome/2),
    Start = erlang:monotonic_time(millisecond),
    {ok, Pid} = floodtest:start(do_url(Server), 11, 20),
    ok = do_eventually(fun() -> do_open(Pid, 11) end),
    true = lists:max(do_times(Server)) - Start >= 200,
    _ = floodtest:stop(Pid),
    {ok, Pid0} = floodtest:start(do_url(Server), 11, 0),
    ok = do_eventually(fun() -> do_open(Pid0, 11) end),
    _ = floodtest:stop(Pid0),
    ok = do_end(Server).

source_addresses(_) ->
    doc("The source addresses are taken in turn."),
    case os:type() of
        {unix, linux} ->
            Server = do_serve(fun do_welcome/2),
            {ok, Pid} = floodtest:start(#{url => do_url(Server), connections => 5,
                from => [{127, 0, 0, 2}, {127, 0, 0, 3}]}),
            ok = do_eventually(fun() -> do_open(Pid, 5) end),
            [{127, 0, 0, 2}, {127, 0, 0, 2}, {127, 0, 0, 2}, {127, 0, 0, 3}, {127, 0, 0, 3}] = lists:sort(do_peers(Server)),
            _ = floodtest:stop(Pid),
            %% An address that is not ours.
            {ok, Pid1} = floodtest:start(#{url => do_url(Server), connections => 3, from => [{192, 0, 2, 1}]}),
            ok = do_eventually(fun() -> do_has(Pid1, closed, 3) end),
            #{reasons := #{eaddrnotavail := 3}} = floodtest:stop(Pid1),
            ok = do_end(Server);
        _ ->
            {skip, "only Linux has all of 127.0.0.0/8"}
    end.

report(_) ->
    doc("{Open, Closed, Chunks, Bytes} is told each `every' ms."),
    Server = do_serve(fun
        (Socket, 1) -> do_send(Socket, "HTTP/1.1 404 Not Found\r\n\r\n");
        (Socket, Uid) -> do_welcome(Socket, Uid)
    end),
    Self = self(),
    {ok, Pid} = floodtest:start(#{url => do_url(Server), connections => 3, every => 100,
        report => fun(Four) -> Self ! {report, Four, erlang:monotonic_time(millisecond)} end}),
    ok = do_eventually(fun() -> do_open(Pid, 2) end),
    do_reports(20),
    #{chunks := Chunks, bytes := Bytes, open := 2, closed := 1} = floodtest:stats(Pid),
    [{{2, 1, Chunks, Bytes}, First}, {_, Second}, {_, Third}] = do_reports(3),
    2 = Chunks,
    true = abs(Third - First - 200) < 100,
    true = abs(Second - First - 100) < 100,
    _ = floodtest:stop(Pid),
    ok = do_end(Server).

%% The first that says that all three are there, and those after it.
do_reports(N) ->
    receive
        {report, Four = {Open, Closed, _, _}, Time} when N =< 3; Open + Closed =:= 3 ->
            case N of
                1 -> [{Four, Time}];
                20 -> ok;
                _ -> [{Four, Time} | do_reports(N - 1)]
            end;
        {report, _, _} ->
            do_reports(N)
    after 5000 ->
        error(no_report)
    end.

printed(_) ->
    doc("By default it is printed, as in the articles."),
    Server = do_serve(fun do_welcome/2),
    ok = ct:capture_start(),
    {ok, Pid} = floodtest:start(#{url => do_url(Server), connections => 1, every => 300}),
    ok = do_eventually(fun() -> do_open(Pid, 1) end),
    #{bytes := Bytes} = floodtest:stats(Pid),
    Want = lists:flatten(io_lib:format("{1,0,1,~w}~n", [Bytes])),
    ok = do_eventually(fun() -> lists:member(Want, ct:capture_get([])) end),
    ok = ct:capture_stop(),
    _ = floodtest:stop(Pid),
    ok = do_end(Server).

stop(_) ->
    doc("stop/1 closes every connection, also those that are opening, and leaves no process."),
    Before = processes(),
    Self = self(),
    Server = do_serve(fun
        (Socket, Uid) when Uid rem 2 =:= 0 -> do_welcome(Socket, Uid), Self ! asked;
        (_, _) -> Self ! asked
    end),
    {ok, Pid} = floodtest:start(do_url(Server), 20),
    [receive asked -> ok end || _ <- lists:seq(1, 20)],
    ok = do_eventually(fun() -> do_open(Pid, 10) end),
    #{open := 10, opening := 10, closed := 0} = floodtest:stop(Pid),
    false = is_process_alive(Pid),
    ok = do_eventually(fun() -> do_closed(Server) =:= 20 end),
    {noproc, _} = do_raised(fun() -> floodtest:stats(Pid) end),
    ok = do_end(Server),
    ok = do_eventually(fun() -> do_left(Before) end).

owner_ends(_) ->
    doc("When the process that started it ends, in whatever way, every connection is closed."),
    Before = processes(),
    Server = do_serve(fun do_welcome/2),
    [begin
        Self = self(),
        Owner = spawn(fun() ->
            Self ! {started, floodtest:start(do_url(Server), 10)},
            receive
                leave -> ok
            end
        end),
        Pid = receive {started, {ok, Started}} -> Started end,
        ok = do_eventually(fun() -> do_open(Pid, 10) end),
        case How of
            normal -> Owner ! leave;
            _ -> exit(Owner, kill)
        end,
        ok = do_eventually(fun() -> do_closed(Server) =:= 10 * N end)
    end || {N, How} <- [{1, normal}, {2, kill}]],
    ok = do_end(Server),
    ok = do_eventually(fun() -> do_left(Before) end).

odd_messages(_) ->
    doc("What it does not know is logged, and it goes on."),
    Server = do_serve(fun do_welcome/2),
    {ok, Pid} = floodtest:start(do_url(Server), 3),
    Pid ! odd,
    ok = gen_server:cast(Pid, odd),
    {error, {bad_request, odd}} = gen_server:call(Pid, odd),
    ok = do_eventually(fun() -> do_open(Pid, 3) end),
    _ = floodtest:stop(Pid),
    ok = do_end(Server).

bad_options(_) ->
    doc("What cannot be is refused, with the key, the value and what is allowed."),
    Url = "http://127.0.0.1:1/",
    [begin
        {bad_option, Key, Value, Expected} =
            do_raised(fun() -> floodtest:start(maps:merge(#{url => Url}, #{Key => Value})) end),
        true = io_lib:printable_list(Expected)
    end || {Key, Values} <- [
        {url, ["", "localhost:8000", "https://localhost/", "http://", "http:///test", "http://localhost:0/",
            "http://localhost:65536/", "http://localhost:123456/", "http://a b/", "http://localhost/a b", "http://localhost/#x",
            "http://localhost/\r\nX: y", "http://u@localhost/", "http://[::g]/", "http://[::1/", 5, [], <<255>>]},
        {connections, [0, -1, 1.0, 134217728]},
        {uids, [{0, 1}, {2, 1}, {1, 16#8000000000000000}, 5]},
        {rate, [0, 0.0, -1, fast]},
        {opening, [0, 1.0]},
        {from, [{127, 0, 0, 1}, ["127.0.0.1"], [{127, 0, 0, 256}]]},
        {timeout, [0, infinity, 1.0]},
        {report, [fun() -> ok end, print]},
        {every, [0, 1.0]},
        {number, [1]}
    ], Value <- Values],
    {bad_option, url, undefined, _} = do_raised(fun() -> floodtest:start(#{}) end),
    {bad_host, "no.such.host.invalid", _} =
        do_raised(fun() -> floodtest:start("http://no.such.host.invalid/", 1) end),
    function_clause = do_raised(fun() -> apply(floodtest, start, [Url, 1, -1]) end).

%% Streams.

do_feed(Pieces) ->
    do_feed([iolist_to_binary(Piece) || Piece <- Pieces], {0, 0, 0, 0, 0, 0}, floodtest_stream:new()).

do_feed([Piece | Rest], Counts0, Stream0) ->
    {Phase, More, Stream} = floodtest_stream:feed(Piece, Stream0),
    Counts = list_to_tuple([A + B || {A, B} <- lists:zip(tuple_to_list(Counts0), tuple_to_list(More))]),
    case {Phase, Rest} of
        {_, []} -> {Phase, Counts};
        {ended, _} -> error({early, Rest});
        {{failed, _}, _} -> {Phase, Counts};
        _ -> do_feed(Rest, Counts, Stream)
    end.

do_chunk(Text) ->
    [integer_to_list(iolist_size(Text), 16), "\r\n", Text, "\r\n"].

%% The server: each connection's request is read by a process that then calls
%% Answer with the socket and the number at the end of the path, and waits for
%% the client to close.

do_serve(Answer) ->
    Self = self(),
    Pid = spawn_link(fun() ->
        {ok, Listen} = gen_tcp:listen(0, [binary, {ip, {127, 0, 0, 1}}, {active, false}, {packet, http_bin},
            {reuseaddr, true}, {backlog, 1024}, {nodelay, true}]),
        {ok, Port} = inet:port(Listen),
        Self ! {self(), Port},
        Keeper = self(),
        _ = spawn_link(fun() -> do_accept(Listen, Keeper, Answer) end),
        do_keep([], 0)
    end),
    receive
        {Pid, Port} -> #{pid => Pid, port => Port}
    end.

do_accept(Listen, Keeper, Answer) ->
    case gen_tcp:accept(Listen) of
        {ok, Socket} ->
            Pid = spawn_link(fun() ->
                receive
                    go -> do_conn(Socket, Keeper, Answer)
                end
            end),
            ok = gen_tcp:controlling_process(Socket, Pid),
            Pid ! go,
            do_accept(Listen, Keeper, Answer);
        {error, closed} ->
            ok
    end.

do_conn(Socket, Keeper, Answer) ->
    Time = erlang:monotonic_time(millisecond),
    {ok, {Peer, _}} = inet:peername(Socket),
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_request, 'GET', {abs_path, Path}, {1, 1}}} ->
            put(headers, do_headers(Socket)),
            Keeper ! {request, {binary_to_list(Path), Time, Peer}},
            ok = inet:setopts(Socket, [{packet, raw}]),
            {match, [Digits]} = re:run(Path, "([0-9]+)[^/]*$", [{capture, all_but_first, list}]),
            _ = Answer(Socket, list_to_integer(Digits)),
            do_wait_closed(Socket);
        {error, _} ->
            ok
    end,
    Keeper ! closed.

do_headers(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_header, _, Name, _, Value}} -> [{Name, Value} | do_headers(Socket)];
        {ok, http_eoh} -> []
    end.

do_wait_closed(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, _} -> do_wait_closed(Socket);
        {error, _} -> gen_tcp:close(Socket)
    end.

do_keep(Requests, Closed) ->
    receive
        {request, Request} ->
            do_keep([Request | Requests], Closed);
        closed ->
            do_keep(Requests, Closed + 1);
        {ask, From, Ref} ->
            From ! {Ref, Requests, Closed},
            do_keep(Requests, Closed)
    end.

do_ask(#{pid := Pid}) ->
    Ref = make_ref(),
    Pid ! {ask, self(), Ref},
    receive
        {Ref, Requests, Closed} -> {Requests, Closed}
    end.

do_paths(Server) -> [Path || {Path, _, _} <- element(1, do_ask(Server))].
do_times(Server) -> [Time || {_, Time, _} <- element(1, do_ask(Server))].
do_peers(Server) -> [Peer || {_, _, Peer} <- element(1, do_ask(Server))].
do_closed(Server) -> element(2, do_ask(Server)).

do_uids(Server) ->
    [list_to_integer(Uid) || "/test/" ++ Uid <- do_paths(Server)].

do_end(#{pid := Pid}) ->
    true = unlink(Pid),
    exit(Pid, kill),
    ok.

do_base(#{port := Port}) ->
    "http://127.0.0.1:" ++ integer_to_list(Port).

do_url(Server) ->
    do_base(Server) ++ "/test/".

do_welcome(Socket, Uid) ->
    do_send(Socket, [?HEAD, do_chunk("Welcome " ++ integer_to_list(Uid))]).

do_send(Socket, Text) ->
    ok = gen_tcp:send(Socket, Text).

%% In pieces of 1, 2, 3 and so on bytes, which cut everywhere.
do_send_pieces(_, <<>>, _) ->
    ok;
do_send_pieces(Socket, Text, Size) ->
    N = min(Size, byte_size(Text)),
    <<Piece:N/binary, Rest/binary>> = Text,
    ok = do_send(Socket, Piece),
    do_send_pieces(Socket, Rest, Size + 1).

do_open(Pid, N) ->
    do_has(Pid, open, N).

%% What Fun raises.
do_raised(Fun) ->
    try Fun() of
        Result -> {returned, Result}
    catch
        _:Reason -> Reason
    end.

%% True, or all that is known.
do_has(Pid, Key, N) ->
    case floodtest:stats(Pid) of
        #{Key := N} -> true;
        Stats -> Stats
    end.

do_left(Before) ->
    Left = [P || P <- processes() -- Before, Info <- [process_info(P, current_stacktrace)], Info =/= undefined,
        string:find(io_lib:format("~p", [Info]), "floodtest") =/= nomatch],
    Left =:= [] orelse Left.
