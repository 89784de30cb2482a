%% The front: GET /test/123 is a stream for user 123, served by a process of its own,
%% which is logged in at the router and sleeps in hibernation between two messages.
-module(comet_web).

%% API.
-export([start_link/4]).

%% Called by mochiweb, and by proc_lib after hibernation.
-export([request/2]).
-export([feed/2]).

%% What mochiweb hands out; it has no types for them.
-type request() :: term().
-type response() :: term().

-spec start_link(inet:ip_address(), inet:port_number(), pos_integer(), pos_integer()) -> {ok, pid()} | {error, term()}.
start_link(Ip, Port, Max, Timeout) ->
    mochiweb_http:start_link([
        {name, ?MODULE},
        {ip, Ip},
        {port, Port},
        {max, Max},
        {nodelay, true},
        {loop, {?MODULE, request, [Timeout]}}
    ]).

-spec request(request(), pos_integer()) -> term().
request(Request, Timeout) ->
    case {mochiweb_request:get(method, Request), mochiweb_request:get(path, Request)} of
        {'GET', "/test/" ++ Text} ->
            case string:to_integer(Text) of
                {Id, ""} when is_integer(Id) -> stream(Id, Request, Timeout);
                _ -> mochiweb_request:not_found(Request)
            end;
        _ ->
            mochiweb_request:not_found(Request)
    end.

-spec stream(integer(), request(), pos_integer()) -> no_return().
stream(Id, Request, Timeout) ->
    Headers = [{"Content-Type", "text/html; charset=utf-8"}],
    Response = mochiweb_request:respond({200, Headers, chunked}, Request),
    ok = router:login(Id, self()),
    sleep(Response, Timeout).

%% A newline now and then shows that the browser has gone: nobody reads from the socket,
%% so only a write finds out, the second after the end. mochiweb ends the process then,
%% and the router is told by the link.
-spec sleep(response(), pos_integer()) -> no_return().
sleep(Response, Timeout) ->
    _ = erlang:send_after(Timeout, self(), newline),
    proc_lib:hibernate(?MODULE, feed, [Response, Timeout]).

-spec feed(response(), pos_integer()) -> no_return().
feed(Response, Timeout) ->
    receive
        {router_msg, Body} ->
            chunk(Body, Response),
            proc_lib:hibernate(?MODULE, feed, [Response, Timeout]);
        newline ->
            chunk("\n", Response),
            sleep(Response, Timeout)
    end.

%% A message is a chunk. One of no bytes would be the last.
-spec chunk(iodata(), response()) -> ok.
chunk(Body, Response) ->
    case iolist_size(Body) of
        0 ->
            ok;
        _ ->
            _ = mochiweb_response:write_chunk(Body, Response),
            ok
    end.
