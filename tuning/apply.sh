#!/bin/sh
# Sets what so many connections need, now and after the next start of the machine; check.sh says what that is.
#
#     tuning/apply.sh N [--outgoing] [--listeners=L]
#     tuning/apply.sh --undo            everything is again as it was before the first apply
#
# --outgoing: the clients are on this machine too. --listeners: how many the router's configuration has, 1 by default.
# Needs root. What is enough already is left alone. What was there is remembered in /var/lib/crosspoint-tuning.
# shellcheck disable=SC1091,SC2154 # targets.sh is beside it, and sets what is not assigned here.
set -eu

. "$(dirname "$0")/targets.sh"

memory=/var/lib/crosspoint-tuning
sysctl_file=/etc/sysctl.d/90-crosspoint.conf
limits_file=/etc/security/limits.d/90-crosspoint.conf

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# remember_file FILE NAME: once, whether it was there and what was in it.
remember_file() {
    if [ ! -e "$memory/$2.before" ] && [ ! -e "$memory/$2.absent" ]; then
        if [ -e "$1" ]; then cp -p "$1" "$memory/$2.before"; else : >"$memory/$2.absent"; fi
    fi
}

# restore_file FILE NAME
restore_file() {
    if [ -e "$memory/$2.before" ]; then
        cp -p "$memory/$2.before" "$1"
    elif [ -e "$memory/$2.absent" ]; then
        rm -f "$1"
    fi
}

is_remembered() {
    grep -q "^$1=" "$memory/sysctl"
}

apply_setting() {
    value=$(value_of "$1")
    merged=$(merge "$1" "$value" "$2")
    if [ "$merged" != "$value" ]; then
        # First what was there, then the change: an apply that is cut off can be undone.
        is_remembered "$1" || echo "$1=$value" >>"$memory/sysctl"
        if ! echo "$merged" >"$(path_of "$1")"; then
            echo "$1 cannot be set to $merged" >&2
            failed=1
            return 0
        fi
        echo "$1: $value -> $merged"
    fi
    if is_remembered "$1"; then
        echo "$1=$merged" >>"$memory/now"
    fi
}

# The template with the values that were set; lines of settings that were not needed go.
install_sysctl() {
    remember_file "$sysctl_file" sysctl.d
    mkdir -p "${sysctl_file%/*}"
    render sysctl.conf | awk -v now="$memory/now" '
        BEGIN {
            while ((getline line <now) > 0) { split(line, pair, "="); values[pair[1]] = pair[2] }
        }
        /^[a-z]/ {
            if (!($1 in values)) { print "# enough without: " $1; next }
            print $1 " = " values[$1]; next
        }
        { print }' >"$sysctl_file.new"
    mv "$sysctl_file.new" "$sysctl_file"
    echo "$sysctl_file is written"
}

install_limits() {
    if [ ! -d /etc/security ]; then
        echo "no PAM here, so no $limits_file"
        return
    fi
    remember_file "$limits_file" limits.d
    mkdir -p "${limits_file%/*}"
    render limits.conf >"$limits_file.new"
    mv "$limits_file.new" "$limits_file"
    echo "$limits_file is written"
}

apply() {
    mkdir -p "$memory"
    : >>"$memory/sysctl"
    : >"$memory/now"
    failed=0
    each_setting apply_setting
    install_sysctl
    install_limits
    echo "from the next login on; in a shell of root that is there already: ulimit -n $nofile; ulimit -l $memlock_kib"
    exit "$failed"
}

undo() {
    if [ ! -e "$memory/sysctl" ]; then
        echo 'nothing was applied here'
        return
    fi
    failed=0
    while IFS= read -r line; do
        key=${line%%=*}
        before=${line#*=}
        # A setting may be gone with its module.
        if [ -e "$(path_of "$key")" ]; then
            echo "$before" >"$(path_of "$key")" || true
            if [ "$(value_of "$key")" = "$before" ]; then
                echo "$key: $before again"
            else
                echo "$key is $(value_of "$key") and was $before" >&2
                failed=1
            fi
        fi
    done <"$memory/sysctl"
    restore_file "$sysctl_file" sysctl.d
    restore_file "$limits_file" limits.d
    [ "$failed" = 0 ] || exit 1
    rm -r "$memory"
    echo 'everything is as it was before'
}

number=
outgoing=1
listeners=1
wants_undo=
for argument; do
    case $argument in
        --outgoing) outgoing=2 ;;
        --listeners=*)
            listeners=${argument#*=}
            is_number "$listeners" || usage
            ;;
        --undo) wants_undo=1 ;;
        *)
            is_number "$argument" || usage
            number=$argument
            ;;
    esac
done
[ -n "$number$wants_undo" ] || usage
if [ "$(id -u)" != 0 ]; then
    echo 'only root may set this; tuning/check.sh only reads' >&2
    exit 1
fi
if [ -n "$wants_undo" ]; then
    undo
else
    set_targets "$number" "$outgoing" "$listeners"
    apply
fi
