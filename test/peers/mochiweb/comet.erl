%% The mochiweb front of "A Million-user Comet Application with Mochiweb": starts the
%% router, the front and the process that takes messages from other nodes.
-module(comet).

-export([start/4]).

%% Where the router is asked: by a call, as in the articles, or in its table.
-type lookup() :: call | table.

-spec start(lookup(), inet:ip_address(), inet:port_number(), pos_integer()) -> pid().
start(Lookup, Ip, Port, Max) ->
    spawn_opt(fun() ->
        try
            run(Ip, Port, Max)
        catch Class:Reason ->
            io:format(standard_error, "~0p~n", [{Class, Reason}]),
            halt(1)
        end,
        dispatch(Lookup)
    end, [{message_queue_data, off_heap}]).

%% mochiweb ends with the process that started it: that is the one that stays.
-spec run(inet:ip_address(), inet:port_number(), pos_integer()) -> ok.
run(Ip, Port, Max) ->
    {ok, _} = comet_router:start(),
    {ok, _} = comet_web:start(Ip, Port, Max),
    true = register(httpd, self()),
    io:format("ready~n").

%% The registered process httpd: {Uid, Body}, or a list of such.
-spec dispatch(lookup()) -> no_return().
dispatch(Lookup) ->
    receive
        {Uid, Body} -> send(Lookup, Uid, Body);
        List when is_list(List) -> lists:foreach(fun(Message) -> one(Lookup, Message) end, List);
        _ -> ok
    end,
    dispatch(Lookup).

one(Lookup, {Uid, Body}) -> send(Lookup, Uid, Body);
one(_, _) -> ok.

send(Lookup, Uid, Body) when is_integer(Uid), is_binary(Body) ->
    case Lookup of
        call -> comet_router:send(Uid, Body);
        table -> comet_router:deliver(Uid, Body)
    end;
send(_, _, _) ->
    ok.
