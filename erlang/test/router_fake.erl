%% A process on a hidden Erlang node that tells a router who is connected, as Halley
%% does with --presence. Its connections are processes, which keep what they get.
-module(router_fake).

-export([start/1]).

%% Called on the fake's node.
-export([open/1]).
-export([open/2]).
-export([close/1]).
-export([close_untold/1]).
-export([tell/1]).
-export([cut/0]).
-export([resume/0]).
-export([epoch/0]).
-export([got/1]).

-record(state, {
    router :: {Name :: atom(), node()},
    monitor = none :: reference() | none,
    epoch = 0 :: integer(),
    version = 0 :: non_neg_integer(),
    %% Nothing is told.
    cut = false :: boolean(),
    %% Newest first.
    open = [] :: [{Uid :: term(), pid()}]
}).

%% So few that a handful of connections takes several pages.
-define(PAGE, 3).

%% Tells the process Name of Node; looks for it every 50 ms.
start(Router) ->
    Self = self(),
    Pid = spawn(fun() ->
        true = register(?MODULE, self()),
        Self ! {self(), started},
        loop(look(#state{router = Router}))
    end),
    receive
        {Pid, started} -> ok
    end.

%% A connection of Uid; its pid.
open(Uid) -> ask({open, Uid, told}).

%% How: told; untold, as if the message were lost.
open(Uid, How) -> ask({open, Uid, How}).

close(Pid) -> ask({close, Pid, told}).

close_untold(Pid) -> ask({close, Pid, untold}).

%% Send Message as it is.
tell(Message) -> ask({tell, Message}).

%% Halley's queue is full: nothing is told until resume, which begins an epoch.
cut() -> ask(cut).

resume() -> ask(resume).

epoch() -> ask(epoch).

%% What a connection got since the last got/1. There is a moment between a message's
%% arrival at this node and at the connection.
got(Pid) ->
    timer:sleep(100),
    Pid ! {got, self()},
    receive
        {Pid, Got} -> Got
    end.

ask(What) ->
    Ref = make_ref(),
    ?MODULE ! {Ref, self(), What},
    receive
        {Ref, Answer} -> Answer
    after 10000 ->
        error({no_answer, What})
    end.

loop(State0 = #state{monitor = Monitor}) ->
    receive
        {'DOWN', Monitor, process, _, _} ->
            _ = erlang:send_after(50, self(), look),
            loop(State0#state{monitor = none});
        look ->
            loop(look(State0));
        {Ref, From, What} ->
            {Answer, State} = do(What, State0),
            From ! {Ref, Answer},
            loop(State)
    end.

look(State = #state{router = Router}) ->
    new_epoch(State#state{monitor = erlang:monitor(process, Router)}).

new_epoch(State = #state{cut = true}) ->
    State;
new_epoch(State = #state{epoch = Before, open = Open}) ->
    Epoch = max(Before + 1, erlang:system_time(microsecond)),
    send_pages(Epoch, lists:reverse(Open), State),
    State#state{epoch = Epoch, version = 0}.

send_pages(Epoch, [], State) ->
    send({all_present, Epoch, node()}, State);
send_pages(Epoch, Pairs, State) ->
    {Now, Later} = lists:split(min(?PAGE, length(Pairs)), Pairs),
    send({all_present, Epoch, Now}, State),
    send_pages(Epoch, Later, State).

do({open, Uid, How}, State0 = #state{epoch = Epoch, open = Open}) ->
    Pid = spawn(fun() -> connection([]) end),
    State = count(State0),
    How =:= told andalso send({connected, Uid, Pid,
        #{epoch => Epoch, version => State#state.version, transport => chunked}}, State),
    {Pid, State#state{open = [{Uid, Pid} | Open]}};
do({close, Pid, How}, State0 = #state{open = Open}) ->
    {Uid, Pid} = lists:keyfind(Pid, 2, Open),
    State = count(State0),
    How =:= told andalso send({disconnected, Uid, Pid, normal}, State),
    exit(Pid, kill),
    {ok, State#state{open = lists:keydelete(Pid, 2, Open)}};
do({tell, Message}, State) ->
    {send(Message, State), State};
do(cut, State) ->
    {ok, State#state{cut = true}};
do(resume, State) ->
    {ok, new_epoch(State#state{cut = false})};
do(epoch, State = #state{epoch = Epoch}) ->
    {Epoch, State}.

count(State = #state{cut = true}) -> State;
count(State = #state{version = Version}) -> State#state{version = Version + 1}.

send(_, #state{cut = true}) ->
    ok;
send(Message, #state{router = Router}) ->
    Router ! Message,
    ok.

connection(Got) ->
    receive
        {got, From} ->
            From ! {self(), lists:reverse(Got)},
            connection([]);
        Message ->
            connection([Message | Got])
    end.
