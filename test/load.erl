%% What sends much, for the tests of test/. A message's body is "Uid:N;" where N counts
%% from 1 for each uid.
-module(load).
-export([singles/4, lists/5, mixed/4, slow/5, flood/2, start/2, stop/1, hidden/1, down/1]).
-export([pids/2, to_pids/3, uids_and_pids/4, hold/1, held/1]).

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

%% The pids of the uids from 1 to Uids, each of which has one connection.
pids(To, Uids) ->
    [begin [Pid] = gen_server:call(To, {whereis, U}), Pid end || U <- lists:seq(1, Uids)].

%% Rounds of one message to each pid.
to_pids(Pids, From, Last) ->
    Numbered = lists:enumerate(Pids),
    each(From, Last, fun(N) -> lists:foreach(fun({U, Pid}) -> Pid ! element(2, message(U, N)) end, Numbered) end).

%% Rounds by uid, by pid, and by pid as a router does, in turn.
uids_and_pids(To, Pids, From, Last) ->
    each(From, Last, fun
        (N) when N rem 3 =:= 0 -> singles(To, length(Pids), N, N);
        (N) when N rem 3 =:= 1 -> to_pids(Pids, N, N);
        (N) -> lists:foreach(fun({U, Pid}) -> Pid ! {router_msg, element(2, message(U, N))} end, lists:enumerate(Pids))
    end).

%% A process that is linked to all Pids and monitors them. It tells of no signal: held/1
%% gives how many of each kind have come, by reason.
hold(Pids) ->
    Self = self(),
    Holder = spawn(fun() ->
        process_flag(trap_exit, true),
        Refs = maps:from_keys([begin link(P), erlang:monitor(process, P) end || P <- Pids], true),
        Self ! {self(), held},
        holding(Refs, maps:from_keys(Pids, true), #{})
    end),
    receive {Holder, held} -> Holder end.

holding(Refs, Pids, Counts) ->
    receive
        {'EXIT', Pid, R} when is_map_key(Pid, Pids) -> holding(Refs, maps:remove(Pid, Pids), count({exit, R}, Counts));
        {'DOWN', Ref, process, _, R} when is_map_key(Ref, Refs) -> holding(maps:remove(Ref, Refs), Pids, count({down, R}, Counts));
        {ask, From} -> From ! {self(), Counts}, holding(Refs, Pids, Counts);
        Odd -> holding(Refs, Pids, count({odd, Odd}, Counts))
    end.

count(Key, Counts) -> maps:update_with(Key, fun(N) -> N + 1 end, 1, Counts).

held(Holder) ->
    Holder ! {ask, self()},
    receive {Holder, Counts} -> lists:sort(maps:to_list(Counts)) end.

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
