/*
 * Who may run a guest with its output open, and what may leave it: a model of docs/adr/0006 for spin 6.5.
 *
 *   spin -a authority.pml && gcc -O1 -DSAFETY -DNOREDUCE -DCOLLAPSE -o pan pan.c && ./pan -m10000
 *   spin -DLIVE -DHF=2 -DGF=3 -DBF=1 -a authority.pml && gcc -O1 -DNOREDUCE -DCOLLAPSE -o pan pan.c && ./pan -a -m10000
 *   spin -t -p -k authority.pml.trail authority.pml        (same -D as before: the counterexample, step by step)
 *
 * test_formal_model.py does this for all bounds and mutations, trace.py compares traces of events with the model (-DTRACE).
 *
 * WHAT THERE IS. Two hosts in either role, a witness whose only change is compare-and-swap on the generation. A step of a host
 * is atomic; between two of its steps anything else may happen, for as long as one likes. So a freeze between a check
 * and its act needs nothing of its own: what was read from the witness, that an acknowledgement was accepted (`letting`), and
 * that the record was won are checked in one step and acted on in another. Agents and hosts crash and start again. A request
 * to the witness is answered; or made and not answered; or late, so that it may be made at any later time, also after its
 * agent's death; or lost. Detectors have no clock: a backup may suspect and a primary may tire at any moment, which is every
 * timeout, delay and partition, also one-way. A connection's end is seen by one side before the other; messages of an older
 * session may still come, but nobody heeds them: they are kept only in the mutation in which somebody does. A copy may be lost by
 * its host. Epochs go on while the record is asked to name the backup; with the session ends the asking, and what was asked is in
 * doubt. So it is when an owner gives up on asking to be alone, and looks for its backup again. The history that clients were told
 * is a path in a tree of states; an activation begins a branch.
 *
 * WHAT IS CHECKED (CHECK, as bits).
 *   1  G1: what is released was committed by the backup, or output is open by the record.
 *   2  G3: output is never open on both hosts.
 *   4  Output is open only while the record says (this host, solo). Stronger than needed: the reason for 2.
 *   8  All that clients are told is one history: nobody activates a copy that is older than what was told, and no stale owner
 *      lets out what the new owner does not know. (A frozen one may let out, late, what the new owner does know.)
 *   LIVE: when faults have ended, the guest ends up running with its output open, or protected in a live session under the
 *      record. Excused: `gone`, when a crash took the last guest or copy that could count. No fairness is needed: what follows
 *      the last fault is finite, and each of its ends is checked. (With pan's -f such ends are not looked at at all.)
 *
 * BOUNDS. Until faults end: HF states of the guest, so at most HF epochs over all sessions; generations to GF; SF sessions; BF
 * activations; FAULTS faults of any kind in total. Suspicion and freezes are not counted. In LIVE some more of each is
 * left for the time after faults. 2 faults with HF=4 GF=4: 0.75 million states, 165 MiB; LIVE with
 * HF=2 GF=3 BF=1: 0.6 million states, 100 MiB. Within the bounds the search is
 * exhaustive (-DCOLLAPSE loses nothing, no bit-state hashing).
 *
 * WHAT IS NOT MODELLED. Disks (they are part of a commit). Timers. A switchover: its backup takes over a primary that does not
 * resume, which is a takeover from one that does with less behind it. The start and the end of the record. A guest that ends
 * by itself, or is started anew after a crash. A witness that forgets (etcd restored from a backup). More than two hosts.
 *
 * MUTATIONS, each of which must be found: NO_ACK_WAIT NO_COMPARE SOLO_UNASKED GENERATION_UNCHECKED STALE_COPY
 * OPEN_WHILE_UNKNOWN UNCHANGED_IS_FAILED RELY_ON_READING UNREAD_BACKUP OLDER_COPY_KEPT OVERRIDE; in LIVE: NO_GIVING_BACK DESTROY_AT_ONCE.
 */

#ifndef HF
#define HF 4		/* states of the guest that are told apart while faults happen (epochs, over all sessions) */
#endif
#ifndef GF
#define GF 4		/* highest generation reached while faults happen */
#endif
#ifndef SF
#define SF 2		/* sessions while faults happen */
#endif
#ifndef BF
#define BF 2		/* activations */
#endif
#ifndef FAULTS
#define FAULTS 2	/* of: agent or host that crashes; copy lost; answer lost; request that comes late or never; connection's end seen by one side */
#endif

#ifdef LIVE		/* what is left to do when faults have ended */
#define QUIET_HF (HF + 3)
#define QUIET_GF (GF + 4)
#define QUIET_SF (SF + 3)
#define QUIET_BF (BF + 1)
#endif

#ifdef TRACE
#define num short
#define BRANCHES 250
#define COUNT skip	/* as many as it takes */
#else
#define num byte
#define BRANCHES 3
#define COUNT faults++
#endif

#ifdef NO_ACK_WAIT
#define MAY_RELEASE(a) true
#else
#define MAY_RELEASE(a) a
#endif
#ifdef STALE_COPY
#define TAKEABLE(g) true
#define COPY_IS_OF(g) true
#else
#define TAKEABLE(g) (r_prot && r_gen == g)
#define COPY_IS_OF(g) (c_gen[me] == g)
#endif
#ifdef UNREAD_BACKUP
#define LETS_IN(who, g) true
#else
#define LETS_IN(who, g) (known[who] && (g) >= known[who])
#endif
#ifdef RELY_ON_READING
#define ALWAYS_CONFIRMED 1
#else
#define ALWAYS_CONFIRMED 0
#endif

#define PEER (1 - me)
#ifdef NO_COMPARE
#define COMPARES(cmp) true
#else
#define COMPARES(cmp) ((cmp) == r_gen)
#endif
/* Whether an acknowledgement of this session will be looked at. */
#ifdef GENERATION_UNCHECKED
#define HEEDED(s) true
#else
#define HEEDED(s) ((s) == p_sid[PEER])
#endif
/* Epochs go on while the record is asked to name the backup. */
#define BESIDE_NAMING(x) (pend[x] == NONE || pend[x] == PROTECT)
/* The backup has committed an epoch of the session. */
#define COMMITTED(x) (e[x] > 1 || e[x] && (acked[x] || !waiting[x]))

/* What is checked, as bits: output commit; output of both hosts open; open without the record; what clients were told. */
#ifndef CHECK
#define CHECK 15
#endif
#if (CHECK) & 1
#define G1(x) assert(x)
#else
#define G1(x) skip
#endif
#if (CHECK) & 2
#define G3(x) assert(x)
#else
#define G3(x) skip
#endif
#if (CHECK) & 4
#define BY_RECORD(x) assert(x)
#else
#define BY_RECORD(x) skip
#endif
#if (CHECK) & 8
#define TOLD(x) assert(x)
#else
#define TOLD(x) skip
#endif

mtype = { NONE, PROTECT, SOLO, TAKE, GIVE };	/* what a host asks of the witness */
mtype = { IDLE, WAIT, UNKNOWN, KNOWN };		/* how far the asking is */
mtype = { NOT, READ, CONFIRMED };		/* what a host knows of its ownership: nothing, by reading, by a change of its own */
mtype = { ABSENT, RUNS, PAUSED };

/* The record. Its revision is its generation: every change raises it by one. */
bit r_owner = 0;
num r_gen = 1;
bit r_prot = 0;

/* Requests under way to the witness: what it compares (0: no request), and what it writes. `late` was given up on by its asker;
   of several only the newest is kept. */
num cur_cmp[2], late_cmp[2];
bit cur_owner[2], cur_prot[2], late_owner[2], late_prot[2];

/* A host. */
mtype guest[2] = ABSENT;	/* the guest, or what is left of it after another host took over */
bit opened[2];		/* frames pass its plugs at once */
num h[2], br[2];	/* the state that its guest is in, by the last barrier: a number on a branch; an activation is a new branch */
bit activated[2];	/* durable: the guest runs or ran here since this host last became its owner */
bit alone[2];		/* durable: it is noted that the guest runs here alone, by which its output may be opened */
mtype own[2] = NOT;
num bel[2];		/* the generation under which it owns the guest, as it believes; 0: it does not */
bit bel_prot[2];
num known[2];		/* highest generation that it has seen in the record; 0: it has just started */
mtype pend[2] = NONE;
mtype ask[2] = IDLE;
num asked[2];		/* the generation that the change was asked on */
bit v_owner[2]; num v_gen[2]; bit v_prot[2];	/* the record, as the last answer had it */

/* As a primary. */
num p_sid[2], p_gen[2], e[2];	/* its session, the generation that HELLO had, the session's last epoch */
bit waiting[2], acked[2];	/* its last epoch is held; is acknowledged */
bit letting[2];			/* the check before a release was passed, its act is to come */

/* As a backup. */
num b_sid[2], b_gen[2];
bit c_ok[2]; num c_gen[2], c_h[2], c_br[2];	/* the committed copy */

#ifdef OLDER_COPY_KEPT
bit o_ok; num o_gen, o_h, o_br;	/* of any host: the copy that was there before */
#endif

/* Messages, one in each direction, by receiver. Session 0: none. One of a session that is over is heeded by nobody, and is not kept. */
num d_sid[2], d_e[2], d_h[2], d_br[2];
num k_sid[2], k_e[2];
num sid;

/* What only the reader of the model knows. */
num vis_h, vis_br;	/* the newest state that a client was told of */
num com_h, com_br;	/* the newest state that was ever committed */
num branches;
#ifndef TRACE
num par[BRANCHES + 1], base[BRANCHES + 1];	/* a branch's own, and the state that it begins with */
#endif
bit quiet; bit gone;
byte faults;

#ifdef LIVE
#define MAXH (quiet -> QUIET_HF : HF)
#define MAXG (quiet -> QUIET_GF : GF)
#define MAXS (quiet -> QUIET_SF : SF)
#define MAXB (quiet -> QUIET_BF : BF)
#else
#define MAXH HF
#define MAXG GF
#define MAXS SF
#define MAXB BF
#endif

/* The state (b1, h1) is in the past of (b2, h2), or is it. */
#define PAST(b1, h1, b2, h2) \
	(((b1) == (b2) && (h1) <= (h2)) \
	|| ((b1) != (b2) && (b1) == par[b2] && (h1) <= base[b2]) \
	|| ((b1) != (b2) && (b1) != par[b2] && (b1) == par[par[b2]] && (h1) <= base[par[b2]]) \
	|| ((b1) != (b2) && (b1) != par[b2] && (b1) != par[par[b2]] && (b1) == par[par[par[b2]]] && (h1) <= base[par[par[b2]]]))

#ifdef TRACE
num x_pos, x_host, x_act, x_gen, x_epoch;	/* the event that has to come next; x_act 0: none is left */
c_decl { \#include "trace_reader.h" };
#define SEEN(who, act, g, n)	(x_host == (who) && x_act == (act) && x_gen == (g) && x_epoch == (n))
#define NEXT \
	c_code { trace_next(&now.x_pos, &now.x_host, &now.x_act, &now.x_gen, &now.x_epoch); }; \
	assert(x_act)	/* an error means that the model can do all of the trace */
#else
#define SEEN(who, act, g, n)	true
#define NEXT			skip
#endif
/* Events of a trace: numbers as in trace.py. */
#define X_SESSION 1
#define X_BARRIER 2
#define X_COMMIT 3
#define X_RELEASE 4
#define X_OPEN 5
#define X_PROTECT 6
#define X_SOLO 7
#define X_TAKE 8
#define X_GIVE 9
#define X_ACTIVATE 10
#define X_STAND_DOWN 11
#define X_AGENT_CRASH 12
#define X_HOST_CRASH 13
#define X_RESUME 14
#define X_ALONE 15

/* Something of state (br, h) of this host leaves it. */
inline visible()
{
#ifndef TRACE
	/* One history: nobody was or will be told what the other telling does not contain. */
	TOLD(PAST(br[me], h[me], vis_br, vis_h) || PAST(vis_br, vis_h, br[me], h[me]));
	/* What was activated last knows of it. */
	TOLD(br[me] == branches || PAST(br[me], h[me], branches, base[branches]));
	if
	:: PAST(vis_br, vis_h, br[me], h[me]) -> vis_h = h[me]; vis_br = br[me]
	:: else
	fi
#else
	skip
#endif
}

/* Nobody waits for the answer any more; the request stays under way. One that compares with a record that is gone changes nothing. */
inline leave_under_way(who)
{
	if
	:: cur_cmp[who] && COMPARES(cur_cmp[who]) ->
		late_cmp[who] = cur_cmp[who]; late_owner[who] = cur_owner[who]; late_prot[who] = cur_prot[who]
	:: else
	fi;
	cur_cmp[who] = 0; cur_owner[who] = 0; cur_prot[who] = 0
}

inline request(what, cmp, owner, prot)
{
	pend[me] = what; ask[me] = WAIT; asked[me] = cmp;
	leave_under_way(me);
	cur_cmp[me] = cmp; cur_owner[me] = owner; cur_prot[me] = prot;
	v_owner[me] = 0; v_gen[me] = 0; v_prot[me] = 0	/* last: `cmp` may be what was read */
}

inline look()
{
	v_owner[me] = r_owner; v_gen[me] = r_gen; v_prot[me] = r_prot; ask[me] = KNOWN
}

inline forget_view()
{
	ask[me] = IDLE; pend[me] = NONE; asked[me] = 0; v_owner[me] = 0; v_gen[me] = 0; v_prot[me] = 0
}

inline end_session()
{
	p_sid[me] = 0; p_gen[me] = 0; e[me] = 0; waiting[me] = 0; acked[me] = 0;
#ifndef GENERATION_UNCHECKED
	k_sid[me] = 0; k_e[me] = 0
#endif
}

/* What is asked may be made as long as it is under way. To know of it is to read it, or to make another change. */
inline give_up()
{
	leave_under_way(me);
	own[me] = READ; forget_view()
}

inline drop_copy()
{
	c_ok[me] = 0; c_gen[me] = 0; c_h[me] = 0; c_br[me] = 0
}

inline end_backup()
{
	b_sid[me] = 0; b_gen[me] = 0;
	d_sid[me] = 0; d_e[me] = 0; d_h[me] = 0; d_br[me] = 0
}

inline stand_down()
{
	end_session(); opened[me] = 0; alone[me] = 0; bel[me] = 0; bel_prot[me] = 0; own[me] = NOT; activated[me] = 0;
#ifdef DESTROY_AT_ONCE
	guest[me] = ABSENT; h[me] = 0; br[me] = 0
#else
	guest[me] = PAUSED
#endif
}

/* Whether the guest can still be continued from what a host holds, whatever others do. */
#define COPY_COUNTS(x) (c_ok[x] && ((r_owner != x && r_prot && r_gen == c_gen[x] && late_cmp[1 - x] != r_gen && cur_cmp[1 - x] != r_gen) \
	|| (r_owner == x && !r_prot && !activated[x] && r_gen == c_gen[x] + 1)))
#define GUEST_COUNTS(x) (guest[x] != ABSENT && (r_owner == x || !activated[1 - x]))

inline crash(who)
{
	own[who] = NOT; bel[who] = 0; bel_prot[who] = 0; known[who] = 0;
	pend[who] = NONE; ask[who] = IDLE; asked[who] = 0; v_owner[who] = 0; v_gen[who] = 0; v_prot[who] = 0;
	leave_under_way(who);
	p_sid[who] = 0; p_gen[who] = 0; e[who] = 0; waiting[who] = 0; acked[who] = 0; letting[who] = 0;
	d_sid[who] = 0; d_e[who] = 0; d_h[who] = 0; d_br[who] = 0; k_sid[who] = 0; k_e[who] = 0;
	b_sid[who] = 0; b_gen[who] = 0; c_ok[who] = 0; c_gen[who] = 0; c_h[who] = 0; c_br[who] = 0
}

inline note_loss()
{
	if
	:: !GUEST_COUNTS(0) && !GUEST_COUNTS(1) && !COPY_COUNTS(0) && !COPY_COUNTS(1) -> gone = 1
	:: else
	fi
}

/* Reasons to believe that the other host is gone. While faults happen any moment is good enough: this is every
   partition, also one-way, every delay and every detector. */
#ifdef LIVE
#define SUSPECTS (!quiet || guest[PEER] != RUNS)
#define SILENCE (!quiet)
#else
#define SUSPECTS true
#define SILENCE true
#endif

proctype Host(bit me)
{
end:	do
	/* -- output ---------------------------------------------------------------------------------------------- */
	:: d_step { letting[me] && SEEN(me, X_RELEASE, p_gen[me], e[me]) -> NEXT;
		G1(PAST(br[me], h[me], com_br, com_h));
		visible();
		letting[me] = 0; waiting[me] = 0; acked[me] = 0 }
	/* Whether the record names the backup yet, or ever will, does not matter: it has what is let out, and nothing older counts. */
	:: d_step { !letting[me] && waiting[me] && guest[me] == RUNS && MAY_RELEASE(acked[me]) && BESIDE_NAMING(me) -> letting[me] = 1 }
#ifndef TRACE
	/* Frames pass while output is open. */
	:: d_step { !letting[me] && opened[me] && guest[me] == RUNS && h[me] < HF ->
		h[me]++;
		G3(!(opened[0] && opened[1]));
		BY_RECORD(r_owner == me && !r_prot);
		visible() }
#endif
	:: d_step { !letting[me] && !alone[me] && guest[me] == RUNS && pend[me] == NONE && bel[me] && !bel_prot[me] && own[me] == CONFIRMED &&
		p_sid[me] == 0 && SEEN(me, X_ALONE, 0, 0) -> NEXT;
		alone[me] = 1 }
	/* Also the next agent, of one that died when it had noted it. */
	:: d_step { !letting[me] && !opened[me] && guest[me] == RUNS && pend[me] == NONE && alone[me] && p_sid[me] == 0 &&
		SEEN(me, X_OPEN, r_gen, 0) -> NEXT;
		BY_RECORD(r_owner == me && !r_prot);
		bel[me] = r_gen; bel_prot[me] = 0; own[me] = CONFIRMED;
		opened[me] = 1;
		G3(!(opened[0] && opened[1]));
		visible() }

	/* -- sessions -------------------------------------------------------------------------------------------- */
	:: d_step { !letting[me] && guest[me] == RUNS && bel[me] && pend[me] == NONE && p_sid[me] == 0 && sid < MAXS &&
		!letting[PEER] && guest[PEER] != RUNS && LETS_IN(PEER, bel[me] + 1 - bel_prot[me]) &&
		bel[me] + 1 - bel_prot[me] <= MAXG && pend[PEER] == NONE && !activated[PEER] &&
		SEEN(me, X_SESSION, bel[me] + 1 - bel_prot[me], 0) -> NEXT;
		sid++; p_sid[me] = sid; p_gen[me] = bel[me] + 1 - bel_prot[me]; e[me] = 0;
		b_sid[PEER] = sid; b_gen[PEER] = p_gen[me];
		d_sid[PEER] = 0; d_e[PEER] = 0; d_h[PEER] = 0; d_br[PEER] = 0;
		guest[PEER] = ABSENT; h[PEER] = 0; br[PEER] = 0 }
	:: d_step { !letting[me] && p_sid[me] && guest[me] == RUNS && !waiting[me] && BESIDE_NAMING(me) && (h[me] < HF || e[me] == 0 && h[me] < MAXH) &&
		SEEN(me, X_BARRIER, p_gen[me], e[me] + 1) -> NEXT;
		opened[me] = 0; alone[me] = 0; h[me]++; e[me]++; waiting[me] = 1; acked[me] = 0;
		if
		:: b_sid[PEER] == p_sid[me] -> d_sid[PEER] = p_sid[me]; d_e[PEER] = e[me]; d_h[PEER] = h[me]; d_br[PEER] = br[me]
		:: else
		fi }
	:: d_step { !letting[me] && d_sid[me] && (d_sid[me] != b_sid[me] || SEEN(me, X_COMMIT, b_gen[me], d_e[me])) ->
		if
		:: d_sid[me] == b_sid[me] ->
			NEXT;
#ifdef OLDER_COPY_KEPT
			if
			:: d_e[me] == 1 -> o_ok = c_ok[me]; o_gen = c_gen[me]; o_h = c_h[me]; o_br = c_br[me]
			:: else
			fi;
#endif
			c_ok[me] = 1; c_gen[me] = b_gen[me]; c_h[me] = d_h[me]; c_br[me] = d_br[me];
			com_h = d_h[me]; com_br = d_br[me];
			if
			:: HEEDED(d_sid[me]) -> k_sid[PEER] = d_sid[me]; k_e[PEER] = d_e[me]
			:: else
			fi
		:: else
		fi;
		d_sid[me] = 0; d_e[me] = 0; d_h[me] = 0; d_br[me] = 0 }
	:: d_step { !letting[me] && k_sid[me] ->
		if
#ifdef GENERATION_UNCHECKED
		:: p_sid[me] && k_e[me] == e[me] && waiting[me] -> acked[me] = 1
#else
		:: k_sid[me] == p_sid[me] && k_e[me] == e[me] && waiting[me] -> acked[me] = 1
#endif
		:: else
		fi;
		k_sid[me] = 0; k_e[me] = 0 }
	:: d_step { !letting[me] && p_sid[me] && BESIDE_NAMING(me) && (faults < FAULTS && !quiet || p_sid[me] != b_sid[PEER]) ->
		if
		:: p_sid[me] == b_sid[PEER] -> COUNT
		:: else
		fi;
		if	/* with it ends the asking for its backup to be named; what was asked is in doubt from now on */
		:: pend[me] == PROTECT -> give_up()
		:: else
		fi;
		end_session() }
	:: d_step { !letting[me] && b_sid[me] && (faults < FAULTS && !quiet || b_sid[me] != p_sid[PEER]) ->
		if
		:: b_sid[me] == p_sid[PEER] -> COUNT
		:: else
		fi;
		end_backup() }

	/* What holds a copy may fail: the toolstack, the hypervisor. */
	:: d_step { !letting[me] && c_ok[me] && !quiet && faults < FAULTS -> COUNT; drop_copy(); end_backup(); note_loss() }
#ifdef OLDER_COPY_KEPT
	:: d_step { c_ok[me] && o_ok -> end_backup(); c_gen[me] = o_gen; c_h[me] = o_h; c_br[me] = o_br; o_ok = 0 }
#endif
#ifdef OVERRIDE
	/* An operator, rightly sure that the other host is off, and no witness to ask. */
	:: d_step { c_ok[me] && guest[me] == ABSENT && guest[PEER] == ABSENT && branches < BRANCHES && pend[me] == NONE ->
		TOLD(PAST(vis_br, vis_h, c_br[me], c_h[me]));
		drop_copy() }
#endif

	/* -- asking the witness ---------------------------------------------------------------------------------- */
	:: d_step { !letting[me] && p_sid[me] && bel[me] && !bel_prot[me] && p_gen[me] == bel[me] + 1 && COMMITTED(me) && pend[me] == NONE ->
		request(PROTECT, bel[me], me, 1) }
	:: d_step { !letting[me] && guest[me] == RUNS && bel[me] && bel_prot[me] && pend[me] == NONE && SILENCE && bel[me] < MAXG ->
#ifdef SOLO_UNASKED
		end_session(); bel_prot[me] = 0; own[me] = CONFIRMED
#else
		request(SOLO, bel[me], me, 0)
#endif
		}
	/* Ownership that was only read of is confirmed by a change of one's own: it overtakes what an earlier agent, or this one, has
	   asked and given up on. */
	:: d_step { !letting[me] && guest[me] == RUNS && bel[me] && !bel_prot[me] && (own[me] == READ || !opened[me] && SILENCE) && pend[me] == NONE &&
		p_sid[me] == 0 && bel[me] < MAXG -> request(SOLO, bel[me], me, 0) }
	/* Nobody can say whether it is alone: it may look for its backup again, its output held. */
	:: d_step { !letting[me] && pend[me] == SOLO && ask[me] == UNKNOWN -> give_up() }
	:: d_step { !letting[me] && guest[me] != RUNS && c_ok[me] && pend[me] == NONE && SUSPECTS && r_gen < MAXG && branches < MAXB && known[me] &&
		r_owner != me && TAKEABLE(c_gen[me]) ->
		request(TAKE, r_gen, me, 0) }
	:: d_step { ask[me] == UNKNOWN -> look() }
	/* Something may be new: at the start, and whenever a peer says so. */
	:: d_step { !letting[me] && ask[me] == IDLE && known[me] != r_gen -> look() }
	:: d_step { ask[me] == KNOWN && v_gen[me] == asked[me] ->
		/* Unchanged is not refused: what was asked may still arrive. */
#ifdef UNCHANGED_IS_FAILED
		if
		:: pend[me] == PROTECT -> end_session(); own[me] = CONFIRMED
		:: else
		fi;
		forget_view()
#else
		if
		:: pend[me] == PROTECT -> request(PROTECT, asked[me], me, 1)
		:: pend[me] == SOLO -> request(SOLO, asked[me], me, 0)
		:: pend[me] == TAKE -> request(TAKE, asked[me], me, 0)
		:: pend[me] == GIVE -> request(GIVE, asked[me], PEER, 0)
		fi
#endif
		}
#ifdef OPEN_WHILE_UNKNOWN
	:: d_step { ask[me] == UNKNOWN && pend[me] == SOLO ->
		end_session(); bel[me] = asked[me] + 1; bel_prot[me] = 0; own[me] = CONFIRMED; forget_view() }
#endif
	/* The owner, as before or again. */
	:: d_step { ask[me] == KNOWN && v_gen[me] != asked[me] && v_owner[me] == me && guest[me] == RUNS && !letting[me] ->
		known[me] = v_gen[me];
		if
		:: v_gen[me] != bel[me] || v_prot[me] != bel_prot[me] || own[me] == NOT ->
			if	/* a session that the record does not stand for ends */
			:: p_sid[me] && (v_prot[me] -> p_gen[me] != v_gen[me] : p_gen[me] != v_gen[me] + 1) -> end_session()
			:: else
			fi;
			own[me] = (pend[me] == NONE && !opened[me] && !(ALWAYS_CONFIRMED) -> READ : CONFIRMED);
			bel[me] = v_gen[me]; bel_prot[me] = v_prot[me]
		:: else
		fi;
		forget_view() }
	/* The owner of a guest that was handed back before it ran anywhere else. */
	:: d_step { ask[me] == KNOWN && v_gen[me] != asked[me] && v_owner[me] == me && guest[me] == PAUSED && !v_prot[me] &&
		SEEN(me, X_RESUME, v_gen[me], 0) -> NEXT;
		known[me] = v_gen[me]; guest[me] = RUNS; activated[me] = 1; own[me] = READ; bel[me] = v_gen[me]; bel_prot[me] = 0; forget_view() }
	/* The owner without a guest that runs: it took over just now, or before its agent died. */
	:: d_step { ask[me] == KNOWN && v_gen[me] != asked[me] && v_owner[me] == me && guest[me] == ABSENT && c_ok[me] && !v_prot[me] &&
		COPY_IS_OF(v_gen[me] - 1) &&
		!activated[me] && branches < BRANCHES && SEEN(me, X_ACTIVATE, v_gen[me], 0) -> NEXT;
		/* Never a copy that is older than what was told. */
		TOLD(PAST(vis_br, vis_h, c_br[me], c_h[me]));
		branches++;
#ifndef TRACE
		par[branches] = c_br[me]; base[branches] = c_h[me];
#endif
		
		guest[me] = RUNS; h[me] = c_h[me]; br[me] = branches; activated[me] = 1; alone[me] = 0;
		bel[me] = v_gen[me]; bel_prot[me] = 0; own[me] = CONFIRMED; known[me] = v_gen[me];
		drop_copy(); end_backup(); forget_view() }
	:: d_step { ask[me] == KNOWN && v_gen[me] != asked[me] && v_owner[me] == me && guest[me] == ABSENT &&
		(!c_ok[me] || v_prot[me] || activated[me] || !COPY_IS_OF(v_gen[me] - 1)) &&
		(activated[me] || v_prot[me] || v_gen[me] < MAXG) ->
		known[me] = v_gen[me]; drop_copy();
		if
#ifndef NO_GIVING_BACK
		:: !activated[me] && !v_prot[me] ->
			pend[me] = NONE; request(GIVE, v_gen[me], PEER, 0)
#endif
		:: else -> forget_view()
		fi }
	/* Another host is the owner. */
	:: d_step { ask[me] == KNOWN && v_gen[me] != asked[me] && v_owner[me] != me && !letting[me] &&
		(guest[me] != RUNS || SEEN(me, X_STAND_DOWN, v_gen[me], 0)) ->
		known[me] = v_gen[me];
		if
		:: guest[me] == RUNS -> NEXT; stand_down()
		:: else -> activated[me] = 0
		fi;
		if
		:: c_ok[me] && c_gen[me] < v_gen[me] -> drop_copy()
		:: else
		fi;
		forget_view() }
	od
}

/* What a request is, by what it writes: its asker may have forgotten. */
#define KIND(owner, prot) (owner != me -> X_GIVE : (prot -> X_PROTECT : (r_owner == me -> X_SOLO : X_TAKE)))
#define ARRIVES(cmp, owner, prot) (cmp && (!COMPARES(cmp) || SEEN(me, KIND(owner, prot), r_gen + 1, 0)))

inline apply(cmp, owner, prot)
{
	if
	:: COMPARES(cmp) -> NEXT; r_owner = owner; r_prot = prot; r_gen++;
#ifndef NO_COMPARE
		/* What compares with an older record changes nothing any more, and nobody waits for it. */
		late_cmp[0] = 0; late_owner[0] = 0; late_prot[0] = 0; late_cmp[1] = 0; late_owner[1] = 0; late_prot[1] = 0
#endif
	:: else
	fi
}

/* What becomes of the requests of a host: etcd compares, writes and answers at one point of time, but when and whether is
   the network's affair. */
proctype Requests(bit me)
{
end:	do
	:: d_step { ARRIVES(cur_cmp[me], cur_owner[me], cur_prot[me]) ->
		apply(cur_cmp[me], cur_owner[me], cur_prot[me]);
		cur_cmp[me] = 0; cur_owner[me] = 0; cur_prot[me] = 0;
		look() }
	:: d_step { !quiet && faults < FAULTS && ARRIVES(cur_cmp[me], cur_owner[me], cur_prot[me]) ->
		apply(cur_cmp[me], cur_owner[me], cur_prot[me]);
		cur_cmp[me] = 0; cur_owner[me] = 0; cur_prot[me] = 0;
		COUNT; ask[me] = UNKNOWN }
	:: d_step { !quiet && faults < FAULTS && cur_cmp[me] && !late_cmp[me] ->
		COUNT; ask[me] = UNKNOWN; leave_under_way(me) }
	:: d_step { ARRIVES(late_cmp[me], late_owner[me], late_prot[me]) ->
		apply(late_cmp[me], late_owner[me], late_prot[me]);
		late_cmp[me] = 0; late_owner[me] = 0; late_prot[me] = 0 }
	:: d_step { late_cmp[me] -> late_cmp[me] = 0; late_owner[me] = 0; late_prot[me] = 0 }
	od
}

proctype Faults()
{
end:	do
	:: d_step { !quiet && faults < FAULTS && SEEN(0, X_AGENT_CRASH, 0, 0) -> NEXT;
		COUNT; crash(0); note_loss() }
	:: d_step { !quiet && faults < FAULTS && SEEN(1, X_AGENT_CRASH, 0, 0) -> NEXT;
		COUNT; crash(1); note_loss() }
	:: d_step { !quiet && faults < FAULTS && SEEN(0, X_HOST_CRASH, 0, 0) -> NEXT;
		COUNT; crash(0); guest[0] = ABSENT; opened[0] = 0; alone[0] = 0; h[0] = 0; br[0] = 0; note_loss() }
	:: d_step { !quiet && faults < FAULTS && SEEN(1, X_HOST_CRASH, 0, 0) -> NEXT;
		COUNT; crash(1); guest[1] = ABSENT; opened[1] = 0; alone[1] = 0; h[1] = 0; br[1] = 0; note_loss() }
#ifdef LIVE
	:: !quiet -> quiet = 1
#endif
	od
}

init {
	d_step {
		guest[0] = RUNS; opened[0] = 1; activated[0] = 1; own[0] = CONFIRMED; bel[0] = 1; known[0] = 1; known[1] = 1;
#ifdef TRACE
		c_code { trace_next(&now.x_pos, &now.x_host, &now.x_act, &now.x_gen, &now.x_epoch); };
#endif
	}
	atomic { run Host(0); run Host(1); run Requests(0); run Requests(1); run Faults() }
}

#ifdef LIVE
#define IS_OPEN(x) (guest[x] == RUNS && opened[x] && r_owner == x && !r_prot)
#define IS_PROTECTED(x) (guest[x] == RUNS && r_owner == x && r_prot && bel[x] == r_gen && bel_prot[x] \
	&& p_sid[x] && p_sid[x] == b_sid[1 - x] && c_ok[1 - x] && c_gen[1 - x] == r_gen)
#ifndef SERVED
#define SERVED (gone || IS_OPEN(0) || IS_OPEN(1) || IS_PROTECTED(0) || IS_PROTECTED(1))
#endif
ltl goes_on { (<> quiet) -> (<> [] SERVED) }
#endif
