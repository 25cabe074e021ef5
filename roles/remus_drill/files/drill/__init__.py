"""What a drill does on the controller: a client of the guest, looks at both agents, and a report.

Runs on its own, outside of Ansible, so that what Ansible waits for is not what is measured. Only `reach.py` needs more than the
standard library: paramiko, for hosts that ssh reaches.
"""
