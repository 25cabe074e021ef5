"""The protocol between two agents: frames on one ordered connection for each protected domain."""
