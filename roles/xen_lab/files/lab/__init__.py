"""Two nested Xen hosts on one machine, with plain QEMU.

Overview:

* ``cli``      the command line; every command ends with one line of JSON
* ``pair``     up and down: what must run, what runs, what is done about the difference
* ``hosts``    one host: start, wait until it is usable, kill, stop
* ``qemu``     the command line of a host's QEMU (pure)
* ``accel``    whether hardware virtualisation really works here
* ``network``  the lab's network namespace, its bridges, and cutting links in it
* ``taps``     tap devices inside the namespace, handed over by file descriptor
* ``process``  pid files that cannot name the wrong process
* ``console``  serial console files
* ``ssh``      the lab's key, ``ssh_config``, and commands on a host
* ``image``    the hosts' disk image, built once and cached
* ``bare``     the image of hosts that boot from their own disk, with GRUB and without Xen
* ``boot_disk`` a disk with GRUB in its first sectors and one partition (pure but for writing it)
* ``guest``    the guest's kernel and initramfs, packed into a disk for the hosts
* ``disk``     a disk with PostgreSQL for the guest, built once and cached
* ``debian``   a minimal Debian in a folder, and packages in it
* ``initramfs`` kernel modules in order, and packing of a tree
* ``recipe``   what an image is made of, and the hash that names it in the cache
* ``archive``  the build machine's own Debian sources, for another release
* ``chroot``   commands inside a file system tree, in namespaces of their own
* ``store``    a cache of finished folders: complete or absent
* ``spec``     names, addresses, settings
* ``progress`` lines for the person who waits

Invariants: nothing outside the lab's folder, its cache and its network namespace is changed; nothing is
signalled but processes that were started here and are proven to be the same.
"""
