"""The nested pair as tests, benchmark and demo use it: everything that touches it from outside.

hosts.py       labctl, and commands on a host over ssh
agent.py       the agents' control sockets, over ssh
witness.py     the witness beside the pair, for a while
clock.py       a host's clock against this machine's
wait.py        poll with a deadline
load.py        the proof's client as a process in the lab's namespace
beacon.py      the guest's beacon, and the frames that really reach the wire
faults.py      seeded faults in an agent's environment, taken away again
disks.py       the guest's backing devices: clean, equal
guest.py       where the guest runs, and the way back to a defined state
protection.py  into protection, out of it, and a host's death without its reboot
collect.py     logs of both hosts
__main__.py    some of it for playbooks
"""
