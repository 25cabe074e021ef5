# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What the modules of this bundle share. Standard library only: it runs under dom0's own Python."""
