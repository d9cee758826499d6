#!/usr/bin/env bash
# A host of its own, as far as its processes can tell: begun as root in new network, mount, process and UTS namespaces.
#   host.sh NUMBER ADDRESS FOLDER VENV
# Its root is this machine's, with what it writes kept in FOLDER/disks/NUMBER until the next time; /tmp and /dev/shm are its
# own, ~/storage is FOLDER/storage as on every host, ~/ltsd-venv is VENV, as if installed before. Ends as its sshd, which
# lets FOLDER/key in.
set -euo pipefail
number=$1 address=$2 folder=$3 venv=$4
disk=$folder/disks/$number root=$folder/disks/$number/root
mount --make-rprivate /
is_new=$([ -d "$disk" ] || echo yes)
mkdir -p "$disk"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=1g tmpfs "$root/dev/shm"
mount -t tmpfs -o size=2g,mode=1777 tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root"/{run/sshd,root/.ssh,root/ltsd-venv,root/storage} "$root$venv"
mount --bind "$venv" "$root$venv"
mount --bind "$folder/storage" "$root/root/storage"
if [ "$is_new" ]; then
  rm -rf "$root"/root/{.ray,ltsd,.bash_profile,.bash_login}
  ln -s "$venv"/{bin,lib,pyvenv.cfg} "$root/root/ltsd-venv/"
  cp "$folder/constraints.txt" "$root/root/ltsd-venv/installed"
  # The installation is an editable one and shows the checkout; here ~/ltsd is to be run.
  printf 'export PYTHONPATH=$HOME/ltsd OMP_NUM_THREADS=1\n' | tee "$root/root/.bashrc" >"$root/root/.profile"
fi
mount -t tmpfs -o mode=700 tmpfs "$root/root/.ssh"
cp "$folder/key.pub" "$root/root/.ssh/authorized_keys"
hostname "host$number"
ip link set lo up
ssh-keygen -q -t ed25519 -N '' -f "$root/run/hostkey"
exec chroot "$root" /usr/sbin/sshd -D -e -o UsePAM=no -o HostKey=/run/hostkey -o PermitRootLogin=prohibit-password \
  -o PidFile=none -o ListenAddress="$address"
