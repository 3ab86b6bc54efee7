# A world for untrusted code: only what Python needs, read-only, one folder to write in, no network, no privileges.
#
#   bash -c "$SCRIPT" jail build COMMAND...    in new mount, pid, network and ipc namespaces: build a root, then `limit`
#   bash -c "$SCRIPT" jail limit COMMAND...    the plain limits, all there is where namespaces are not to be had
#
# From the environment: SCRIPT (this text), WORK and SOCKETS (folders), WORLD (paths, a line each, see jail.py), USER_ID, and the
# limits MEMORY (kB), FILE (kB), PROCESSES, DISK (kB).
set -e
step=$1; shift

if [ "$step" = build ]; then
    root=$WORK                                                # an empty folder of the host carries the new root
    mount -t tmpfs -o size=4m,mode=755 none "$root"
    masks=()
    while read -r line; do                                    # what is not listed does not exist in there
        path=${line:1}
        if [ "${line:0:1}" = - ]; then                        # what lies in a folder that does, and is hidden
            if [ -d "$path" ]; then mount -t tmpfs -o size=1m,mode=755 none "$root$path"; else mount --bind /dev/null "$root$path"; fi
            masks+=("$root$path")
            continue
        fi
        if [ -L "$path" ]; then mkdir -p "$root$(dirname "$path")"; cp -d "$path" "$root$path"; continue; fi
        if [ -d "$path" ]; then mkdir -p "$root$path"; else mkdir -p "$root$(dirname "$path")"; : > "$root$path"; fi
        mount --bind "$path" "$root$path"
        mount -o remount,bind,ro "$root$path"
    done <<< "$WORLD"
    for mask in "${masks[@]}"; do mount -o remount,bind,ro "$mask"; done
    mkdir -p "$root/dev" "$root/proc" "$root/tmp" "$root/.old" "$root$WORK" "$root$SOCKETS"
    for device in null zero full random urandom; do
        : > "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mount -t proc none "$root/proc"
    mount --bind "$SOCKETS" "$root$SOCKETS"                   # the kernel's own sockets, watched from outside
    mount -t tmpfs -o "size=${DISK}k,nr_inodes=4096,mode=777" none "$root$WORK"
    ln -s "$WORK" "$root/dev/shm"
    cd "$root"
    pivot_root . .old
    umount -l /.old
    rmdir /.old
    mount -o remount,ro /
    cd "$WORK"
    if [ "$USER_ID" != 0 ]; then                              # started by root: a user of its own, since limits spare root
        exec setpriv --reuid="$USER_ID" --regid="$USER_ID" --clear-groups \
            unshare --user --map-root-user bash -c "$SCRIPT" jail limit "$@"
    fi
    exec bash -c "$SCRIPT" jail limit "$@"
fi

cd "$WORK"
drop=(--no-new-privs --pdeathsig KILL)                        # a change of user forgets what was set before
if [ "$(id -u)" = 0 ] && [ $$ -lt 10 ]; then                  # root of a namespace only: pid 1 or close to it
    echo 0 > /proc/sys/user/max_user_namespaces
    drop+=(--bounding-set=-all --inh-caps=-all --securebits=+noroot,+noroot_locked)
elif [ "$USER_ID" != 0 ]; then
    drop+=(--reuid="$USER_ID" --regid="$USER_ID" --clear-groups)
fi
unset SCRIPT WORLD
[ "$MEMORY" = 0 ] || ulimit -v "$MEMORY"
ulimit -f "$FILE" -u "$PROCESSES" -c 0 -n 256
if command -v setpriv > /dev/null; then exec setpriv "${drop[@]}" "$@"; fi
exec "$@"
