%% The front: one process for each stream, which sleeps in hibernation between messages.
-module(comet_web).

-export([start/3]).
-export([request/1]).
-export([feed/2]).

-define(BACKLOG, 65535). % the system cuts it to net.core.somaxconn
-define(BUFFER, 128). % bytes that a socket keeps for reading

-spec start(inet:ip_address(), inet:port_number(), pos_integer()) -> {ok, pid()}.
start(Ip, Port, Max) ->
    mochiweb_http:start([
        {name, ?MODULE},
        {ip, Ip},
        {port, Port},
        {max, Max}, % mochiweb's own limit is 2048
        {backlog, ?BACKLOG},
        {nodelay, true},
        {loop, {?MODULE, request}}
    ]).

-spec request(term()) -> term().
request(Request) ->
    case {mochiweb_request:get(method, Request), mochiweb_request:get(path, Request)} of
        {'GET', "/test/" ++ Text} ->
            case string:to_integer(Text) of
                {Uid, ""} when is_integer(Uid), Uid > 0 -> stream(Uid, Request);
                _ -> mochiweb_request:not_found(Request)
            end;
        _ ->
            mochiweb_request:not_found(Request)
    end.

-spec stream(pos_integer(), term()) -> no_return().
stream(Uid, Request) ->
    ok = comet_router:login(Uid, self()),
    Response = mochiweb_request:respond({200, [{"Content-Type", "text/html; charset=utf-8"}], chunked}, Request),
    Socket = mochiweb_request:get(socket, Request),
    sleep(Response, Socket).

%% With one active message asked for, the end of the connection is one: the articles'
%% front sees it when it writes, the second time. The price is 2 to 3 KiB a connection,
%% and would be 4 with mochiweb's buffer.
-spec sleep(term(), inet:socket()) -> no_return().
sleep(Response, Socket) ->
    case inet:setopts(Socket, [{buffer, ?BUFFER}, {active, once}]) of
        ok -> proc_lib:hibernate(?MODULE, feed, [Response, Socket]);
        {error, _} -> exit(normal)
    end.

-spec feed(term(), inet:socket()) -> no_return().
feed(Response, Socket) ->
    receive
        {router_msg, Body} ->
            mochiweb_response:write_chunk(Body, Response),
            proc_lib:hibernate(?MODULE, feed, [Response, Socket]);
        {tcp, Socket, _} -> % a client has nothing to say
            sleep(Response, Socket);
        {tcp_closed, Socket} ->
            exit(normal);
        {tcp_error, Socket, _} ->
            exit(normal)
    end.
