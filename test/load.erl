%% What sends much, for the tests of test/. A message's body is "Uid:N;" where N counts
%% from 1 for each uid.
-module(load).
-export([singles/4, lists/5, mixed/4, slow/5, flood/2, start/2, stop/1, hidden/1, down/1]).

%% Rounds From to Last; in each, one message to each uid from 1 to Uids.
singles(To, Uids, From, Last) ->
    each(From, Last, fun(N) -> each(1, Uids, fun(U) -> To ! message(U, N) end) end).

%% The same in lists of Size.
lists(To, Uids, Size, From, Last) ->
    each(From, Last, fun(N) -> send_lists(To, Uids, Size, N) end).

%% The same, rounds of singles and of lists of various sizes in turn.
mixed(To, Uids, From, Last) ->
    each(From, Last, fun
        (N) when N rem 2 =:= 0 -> singles(To, Uids, N, N);
        (N) -> send_lists(To, Uids, 1 + N rem 150, N)
    end).

send_lists(To, Uids, Size, N) ->
    send_lists(To, Uids, Size, N, 1).

send_lists(_, Uids, _, _, From) when From > Uids ->
    ok;
send_lists(To, Uids, Size, N, From) ->
    Last = min(Uids, From + Size - 1),
    To ! [message(U, N) || U <- lists:seq(From, Last)],
    send_lists(To, Uids, Size, N, Last + 1).

message(U, N) ->
    {U, <<(integer_to_binary(U))/binary, $:, (integer_to_binary(N))/binary, $;>>}.

%% Count messages of Size bytes and more to Slow, and as many small ones to Healthy.
slow(To, Slow, Healthy, Count, Size) ->
    Pad = binary:copy(<<"x">>, Size),
    each(0, Count div 20 - 1, fun(I) ->
        Ns = lists:seq(I * 20 + 1, I * 20 + 20),
        To ! lists:append([[{Slow, <<(integer_to_binary(N))/binary, $:, Pad/binary>>}, message(Healthy, N)] || N <- Ns])
    end).

%% A process that sends Message again and again, until it is killed.
flood(To, Message) ->
    spawn(fun Again() -> To ! Message, Again() end).

%% A process that sends rounds until it is told to stop; stop gives how many messages
%% it has sent.
start(To, Uids) ->
    spawn(fun() -> forever(To, Uids, 1) end).

stop(Pid) ->
    Ref = erlang:monitor(process, Pid),
    Pid ! {stop, self(), Ref},
    receive
        {Ref, N} -> N;
        {'DOWN', Ref, _, _, Why} -> {down, Why}
    end.

forever(To, Uids, N) ->
    mixed(To, Uids, N, N),
    receive
        {stop, From, Ref} -> From ! {Ref, N * Uids}
    after 0 -> forever(To, Uids, N + 1)
    end.

%% Waits until a node is among the hidden ones, and is none of the visible.
hidden(Node) ->
    wait(fun() -> lists:member(Node, nodes(hidden)) end, 3000) andalso not lists:member(Node, nodes()).

%% Waits until it is not.
down(Node) ->
    wait(fun() -> not lists:member(Node, nodes(hidden)) end, 3000).

wait(_, 0) -> false;
wait(F, N) -> F() orelse begin timer:sleep(10), wait(F, N - 1) end.

each(N, Last, _) when N > Last -> ok;
each(N, Last, F) -> F(N), each(N + 1, Last, F).
