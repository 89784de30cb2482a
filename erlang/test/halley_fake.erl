%% A process that serves Halley's name on an Erlang node, in one of the ways in
%% which a hidden node can answer, or not. It keeps the messages that it gets.
-module(halley_fake).

-export([start/1]).
-export([start/2]).
-export([mode/1]).
-export([got/0]).
-export([peek/0]).

start(Mode) ->
    start(httpd, Mode).

%% Mode: silent, or a fun from the request to the reply.
start(Name, Mode) ->
    Self = self(),
    Pid = spawn(fun() ->
        true = register(Name, self()),
        Self ! {self(), registered},
        loop(Mode, [])
    end),
    receive
        {Pid, registered} -> ok
    end.

%% These are called on the fake's node.

mode(Mode) ->
    ask({mode, Mode}).

%% The messages since the last got/0.
got() ->
    ask(got).

peek() ->
    ask(peek).

ask(What) ->
    Ref = make_ref(),
    httpd ! {Ref, self(), What},
    receive
        {Ref, Answer} -> Answer
    end.

loop(Mode, Got) ->
    receive
        {'$gen_call', From, Request} when is_function(Mode, 1) ->
            gen_server:reply(From, Mode(Request)),
            loop(Mode, Got);
        {'$gen_call', _, _} ->
            loop(Mode, Got);
        {Ref, From, {mode, New}} ->
            From ! {Ref, ok},
            loop(New, Got);
        {Ref, From, peek} ->
            From ! {Ref, lists:reverse(Got)},
            loop(Mode, Got);
        {Ref, From, got} ->
            From ! {Ref, lists:reverse(Got)},
            loop(Mode, []);
        Message ->
            loop(Mode, [Message | Got])
    end.
