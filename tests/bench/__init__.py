"""The benchmark against stock `xl remus`: same hosts, same guest, one run, alternating.

    on_host.py   runs in the primary's dom0 (standard library only): one measurement of either kind, raw figures out
    figures.py   raw figures to medians, ratios and verdicts; pure
    report.py    reads a results folder and writes the summary
    run.py       what it shares with the benchmarks of disks and failovers

What is compared, and in whose favour
-------------------------------------

*suspended*: stock, from the line "Domain now suspended" to the last line of "Checkpointed save", which leaves out everything
stock does after its pages (state records, handing over to libxl, resuming), so the true figure is larger. Ours: from the
guest being down until it runs again, everything included.

*checkpoints a second*: over the whole window, at each of stock's intervals; its best counts.

*seeding*: stock, from the start of the command until the guest is suspended for the first time. Ours: from the request until
the first checkpoint is acknowledged, which is later.
"""
