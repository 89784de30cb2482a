%% @doc Reach the browsers whose connections Halley holds.
%%
%% This is the one module of the application to call. A function without a
%% destination reaches every Halley node that is up, since a user's browsers
%% can be on any of them; a function with one reaches that node. Both do what
%% `{httpd, Node} ! {Uid, Body}' does, and no process stands in between: the
%% messages of one process to one user arrive in the order they were sent.
%%
%% Sends answer `ok' as `!' would, whether or not anybody got the message. The
%% `deliver' functions wait for Halley's answer and tell how many browsers
%% there were. When Halley does not read fast enough, Erlang suspends the
%% sender (`busy_dist_port'), here as with any `!'.
%%
%% Each connection is a pid, which {@link pids/1} finds: `Pid ! Body', `link/1',
%% `monitor/2' and `exit/2' do with it what they do with a process.
%%
%% A uid, body, destination or pid that cannot be one is an error of the caller:
%% `{bad_uid, Uid}', `{bad_body, Body}', `{bad_dest, Dest}', `{bad_pid, Pid}'. Nothing
%% is sent then.
-module(halley).

-compile({no_auto_import, [nodes/0]}).

%% API.
-export([nodes/0]).
-export([send/2]).
-export([send/3]).
-export([send_many/1]).
-export([send_many/2]).
-export([broadcast/1]).
-export([broadcast/2]).
-export([deliver/2]).
-export([deliver/3]).
-export([pids/1]).
-export([info/1]).
-export([close/1]).
-export([close/2]).
-export([close/3]).

-define(MAX_UID, 16#7FFFFFFFFFFFFFFF).

%% One list per message to Halley: from 100 on, longer ones are no faster. The
%% bytes are bounded too, because a packet over Halley's --max-packet (64 MiB)
%% costs the connection.
-define(LIST_LENGTH, 100).
-define(LIST_BYTES, 1048576).

%% As long as gen_server:call/2 waits.
-define(CALL_MS, 5000).

-type uid() :: 1..16#7FFFFFFFFFFFFFFF | <<_:8, _:_*8>>.
%% Whom a message is for: an integer, or a binary of 1 to 255 bytes.
-type body() :: iodata().
-type dest() :: node() | {Name :: atom(), node()}.
%% A Halley node, and the name it serves if that is not the configured one.
-type reason() :: no_halley | noproc | timeout | {nodedown, node()} | term().
-export_type([uid/0, body/0, dest/0, reason/0]).

%% API.

%% @doc The Halley nodes that are up, in the order of their names.
-spec nodes() -> [node()].
nodes() ->
    [Node || {_, Node} <- halley_nodes:up()].

%% @doc Send Body to every connection of Uid on all Halley nodes that are up.
%%
%% With none up, or Uid connected nowhere, the message is gone: `ok' as well.
-spec send(uid(), body()) -> ok.
send(Uid, Body) ->
    to_all({uid(Uid), body(Body)}).

%% @doc Send Body to every connection of Uid on one Halley node.
%%
%% As with `!', Erlang connects to the node if it is not connected yet.
-spec send(dest(), uid(), body()) -> ok.
send(Dest, Uid, Body) ->
    to_one(dest(Dest), {uid(Uid), body(Body)}).

%% @doc Send many messages: several times as fast as one by one.
-spec send_many([{uid(), body()}]) -> ok.
send_many(Messages) ->
    lists:foreach(fun to_all/1, lists_of(Messages)).

%% @doc Send many messages to one Halley node.
-spec send_many(dest(), [{uid(), body()}]) -> ok.
send_many(Dest0, Messages) ->
    Dest = dest(Dest0),
    lists:foreach(fun(List) -> to_one(Dest, List) end, lists_of(Messages)).

%% @doc Send Body to every connection of every Halley node that is up.
-spec broadcast(body()) -> ok.
broadcast(Body) ->
    to_all({all, body(Body)}).

%% @doc Send Body to every connection of one Halley node.
-spec broadcast(dest(), body()) -> ok.
broadcast(Dest, Body) ->
    to_one(dest(Dest), {all, body(Body)}).

%% @doc Send Body to every connection of Uid, and tell how many there were.
%%
%% `{ok, 0}' is certain: every Halley node answered, and Uid is connected
%% nowhere. `{ok, N}' counts those nodes that answered. `{error, Reason}': no
%% connection is known to have got it, and not every node could be asked;
%% `no_halley' if none is up. Waits 5 seconds at most.
-spec deliver(uid(), body()) -> {ok, non_neg_integer()} | {error, reason()}.
deliver(Uid, Body) ->
    Request = {deliver, uid(Uid), body(Body)},
    case halley_nodes:up() of
        [] -> {error, no_halley};
        [Dest] -> call(Dest, Request);
        Dests -> total(call_all(Dests, Request), 0, none)
    end.

%% @doc Send Body to every connection of Uid on one Halley node, and tell how
%% many there were.
-spec deliver(dest(), uid(), body()) -> {ok, non_neg_integer()} | {error, reason()}.
deliver(Dest, Uid, Body) ->
    call(dest(Dest), {deliver, uid(Uid), body(Body)}).

%% @doc The pids of Uid's connections on all Halley nodes that are up, those of one
%% node together, the latest last. A node that does not answer within 5 seconds is left
%% out.
-spec pids(uid()) -> [pid()].
pids(Uid) ->
    lists:append([Pids || {ok, Pids} <- whereis_all(uid(Uid))]).

%% @doc What Halley knows of a connection, `undefined' if it is gone, and its node with
%% it maybe.
%%
%% The map has `uid', `transport' (`chunked'), `peer' (the client's address and port),
%% `age' in seconds, `pending' (bytes that wait for the client's socket) and, where the
%% system tells, `bytes' that its socket was given.
-spec info(pid()) -> map() | undefined | {error, reason()}.
info(Pid) ->
    case ask({halley_nodes:name(), node(pid(Pid))}, {info, Pid}) of
        {ok, Info} when is_map(Info); Info =:= undefined -> Info;
        {ok, Reply} -> {error, {bad_reply, Reply}};
        {error, noproc} -> undefined;
        {error, noconnection} -> undefined;
        {error, {nodedown, _}} -> undefined;
        {error, Reason} -> {error, Reason}
    end.

%% @doc End a connection, or every connection of a uid on all Halley nodes that are up,
%% after what was sent before. Links and monitors get the reason `kicked'.
%%
%% For a uid this tells how many there were, as {@link deliver/2} does. For a pid it is
%% `ok', as `!' is.
-spec close(pid()) -> ok; (uid()) -> {ok, non_neg_integer()} | {error, reason()}.
close(Pid) when is_pid(Pid) ->
    kick(pid(Pid));
close(Uid) ->
    case whereis_all(uid(Uid)) of
        [] ->
            {error, no_halley};
        Answers ->
            total([case Answer of
                {ok, Pids} ->
                    lists:foreach(fun kick/1, Pids),
                    {ok, length(Pids)};
                Error ->
                    Error
            end || Answer <- Answers], 0, none)
    end.

-spec kick(pid()) -> ok.
kick(Pid) ->
    _ = erlang:send(Pid, {close, kicked}, [noconnect]),
    ok.

%% @doc End every connection of Uid on all Halley nodes that are up.
-spec close(uid(), Reason :: term()) -> ok.
close(Uid, Reason) ->
    to_all({close, uid(Uid), Reason}).

%% @doc End every connection of Uid on one Halley node.
-spec close(dest(), uid(), Reason :: term()) -> ok.
close(Dest, Uid, Reason) ->
    to_one(dest(Dest), {close, uid(Uid), Reason}).

%% Sending.

-spec to_one({atom(), node()}, term()) -> ok.
to_one(Dest, Message) ->
    _ = erlang:send(Dest, Message),
    ok.

%% A node that went down a moment ago is not worth a new connection:
%% halley_nodes hears of it, and reconnects where that is asked for.
-spec to_all(term()) -> ok.
to_all(Message) ->
    lists:foreach(fun(Dest) ->
        erlang:send(Dest, Message, [noconnect])
    end, halley_nodes:up()).

-spec call({atom(), node()}, term()) -> {ok, non_neg_integer()} | {error, reason()}.
call(Dest, Request) ->
    answer(ask(Dest, Request)).

-spec call_all([{atom(), node()}], term()) -> [{ok, non_neg_integer()} | {error, reason()}].
call_all(Dests, Request) ->
    [answer(Result) || Result <- ask_all(Dests, Request)].

-spec whereis_all(uid()) -> [{ok, [pid()]} | {error, reason()}].
whereis_all(Uid) ->
    [case Result of
        {ok, Pids} when is_list(Pids) -> Result;
        {ok, Reply} -> {error, {bad_reply, Reply}};
        Error -> Error
    end || Result <- ask_all(halley_nodes:up(), {whereis, Uid})].

-spec ask({atom(), node()}, term()) -> {ok, Reply :: term()} | {error, reason()}.
ask(Dest, Request) ->
    try
        {ok, gen_server:call(Dest, Request, ?CALL_MS)}
    catch
        exit:{Reason, {gen_server, call, _}} -> {error, Reason}
    end.

%% All nodes are asked at once, and share the time.
-spec ask_all([{atom(), node()}], term()) -> [{ok, Reply :: term()} | {error, reason()}].
ask_all(Dests, Request) ->
    Until = {abs, erlang:monotonic_time(millisecond) + ?CALL_MS},
    Asked = [{Node, gen_server:send_request({Name, Node}, Request)} || {Name, Node} <- Dests],
    [case gen_server:receive_response(Id, Until) of
        {reply, Reply} -> {ok, Reply};
        timeout -> {error, timeout};
        {error, {noconnection, _}} -> {error, {nodedown, Node}};
        {error, {Reason, _}} -> {error, Reason}
    end || {Node, Id} <- Asked].

%% What was answered to deliver.
-spec answer({ok, Reply :: term()} | {error, reason()}) -> {ok, non_neg_integer()} | {error, reason()}.
answer({ok, {ok, N}}) when is_integer(N), N >= 0 -> {ok, N};
answer({ok, {error, Reason}}) -> {error, Reason};
answer({ok, Reply}) -> {error, {bad_reply, Reply}};
answer({error, Reason}) -> {error, Reason}.

-spec total([{ok, non_neg_integer()} | {error, reason()}], non_neg_integer(), none | {error, reason()}) ->
    {ok, non_neg_integer()} | {error, reason()}.
total([], 0, {error, Reason}) -> {error, Reason};
total([], Sum, _) -> {ok, Sum};
total([{ok, N} | Rest], Sum, Error) -> total(Rest, Sum + N, Error);
total([Error | Rest], Sum, _) -> total(Rest, Sum, Error).

%% Checks at the door.

-spec uid(uid()) -> uid().
uid(Uid) when is_integer(Uid), Uid >= 1, Uid =< ?MAX_UID -> Uid;
uid(Uid) when is_binary(Uid), byte_size(Uid) >= 1, byte_size(Uid) =< 255 -> Uid;
uid(Uid) -> error({bad_uid, Uid}).

%% Halley takes an iolist as well, but it is encoded once per node: flattening
%% it here is one copy for all of them, and the check comes free.
-spec body(body()) -> binary().
body(Body) when is_binary(Body) -> Body;
body(Body) ->
    try
        iolist_to_binary(Body)
    catch
        error:badarg -> error({bad_body, Body})
    end.

-spec dest(dest()) -> {atom(), node()}.
dest({Name, Node} = Dest) when is_atom(Name), is_atom(Node) -> Dest;
dest(Node) when is_atom(Node) -> {halley_nodes:name(), Node};
dest(Dest) -> error({bad_dest, Dest}).

%% Halley is another node.
-spec pid(pid()) -> pid().
pid(Pid) when is_pid(Pid), node(Pid) =/= node() -> Pid;
pid(Pid) -> error({bad_pid, Pid}).

%% Cut Messages into the lists that are sent. All of them are checked before
%% the first is on its way.
-spec lists_of([{uid(), body()}]) -> [[{uid(), binary()}, ...]].
lists_of(Messages) ->
    lists_of(Messages, [], 0, 0, []).

-spec lists_of([{uid(), body()}], [{uid(), binary()}], non_neg_integer(), non_neg_integer(),
    [[{uid(), binary()}, ...]]) -> [[{uid(), binary()}, ...]].
lists_of([], [], _, _, Lists) ->
    lists:reverse(Lists);
lists_of([], List, _, _, Lists) ->
    lists:reverse(Lists, [lists:reverse(List)]);
lists_of([{Uid, Body0} | Rest], List, Length, Bytes, Lists) ->
    Body = body(Body0),
    Size = byte_size(Body),
    Message = {uid(Uid), Body},
    if
        List =:= [] ->
            lists_of(Rest, [Message], 1, Size, Lists);
        Length =:= ?LIST_LENGTH; Bytes + Size > ?LIST_BYTES ->
            lists_of(Rest, [Message], 1, Size, [lists:reverse(List) | Lists]);
        true ->
            lists_of(Rest, [Message | List], Length + 1, Bytes + Size, Lists)
    end;
lists_of([Message | _], _, _, _, _) ->
    error({bad_message, Message});
lists_of(Messages, _, _, _, _) ->
    error({bad_message, Messages}).
