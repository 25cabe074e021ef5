# shellcheck shell=bash
# Completion of remusctl for bash. Written by tools/shell_completion.py from the parser of remusctl: do not edit.

_remusctl_offer() {
    # $1: what kind of word is wanted, $2: its beginning
    local IFS=$'\n' words
    case "$1" in
        domain)
            words="$(remusctl list 2>/dev/null | awk 'NR > 1 { print $1 }')"
            mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")
            ;;
        peer)
            words="$(remusctl agent 2>/dev/null | awk 'peers { print $1 } $1 == "PEER" { peers = 1 }')"
            mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")
            ;;
        file)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$2")
            ;;
        words:*) mapfile -t COMPREPLY < <(compgen -W "$(tr ' ' '\n' <<<"${1#words:}")" -- "$2") ;;
    esac
}

_remusctl_command() {
    # $1: the command that is being completed: sets what it takes
    options="" valued="" arguments=()
    case "$1" in
        "")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=("words:list agent status topology history watch top protect reprotect pause resume unprotect failover switchover forget probe fence-check events selftest support-bundle validate-config stream")
            ;;
        "list")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=()
            ;;
        "agent")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=()
            ;;
        "status")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=("domain")
            ;;
        "topology")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=()
            ;;
        "history")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=("domain")
            ;;
        "watch")
            options="-h --help -o --output --socket --interval --once"
            valued="-o --output --socket --interval"
            arguments=()
            ;;
        "top")
            options="-h --help -o --output --socket --interval --once"
            valued="-o --output --socket --interval"
            arguments=()
            ;;
        "protect")
            options="-h --help -o --output --socket --peer --interval-ms --no-wait --timeout"
            valued="-o --output --socket --peer --interval-ms --timeout"
            arguments=("domain")
            ;;
        "reprotect")
            options="-h --help -o --output --socket --peer --no-wait --timeout --dry-run"
            valued="-o --output --socket --peer --timeout"
            arguments=("domain")
            ;;
        "pause")
            options="-h --help -o --output --socket --for --reason --dry-run --yes"
            valued="-o --output --socket --for --reason"
            arguments=("domain")
            ;;
        "resume")
            options="-h --help -o --output --socket --no-wait --timeout"
            valued="-o --output --socket --timeout"
            arguments=("domain")
            ;;
        "unprotect")
            options="-h --help -o --output --socket --force --dry-run --yes"
            valued="-o --output --socket"
            arguments=("domain")
            ;;
        "failover")
            options="-h --help -o --output --socket --fenced-host --fenced-method --evidence --accept-loss --expected-generation --dry-run --yes"
            valued="-o --output --socket --fenced-host --fenced-method --evidence --expected-generation"
            arguments=("domain")
            ;;
        "switchover")
            options="-h --help -o --output --socket --timeout --dry-run --yes --expected-generation"
            valued="-o --output --socket --timeout --expected-generation"
            arguments=("domain")
            ;;
        "forget")
            options="-h --help -o --output --socket --force --dry-run --yes"
            valued="-o --output --socket"
            arguments=("none")
            ;;
        "probe")
            options="-h --help -o --output --socket --peer"
            valued="-o --output --socket --peer"
            arguments=("domain")
            ;;
        "fence-check")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=("peer")
            ;;
        "events")
            options="-h --help -o --output --socket --follow --problems --since --limit"
            valued="-o --output --socket --since --limit"
            arguments=("domain")
            ;;
        "selftest")
            options="-h --help -o --output --socket --config --supervisor"
            valued="-o --output --socket --config --supervisor"
            arguments=()
            ;;
        "support-bundle")
            options="-h --help -o --output --socket --config --state"
            valued="-o --output --socket --config --state"
            arguments=("file")
            ;;
        "validate-config")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=("file")
            ;;
        "stream")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=("words:verify inspect diff convert cut send")
            ;;
        "stream verify")
            options="-h --help -o --output --socket"
            valued="-o --output --socket"
            arguments=("file")
            ;;
        "stream inspect")
            options="-h --help -o --output --socket --records --epochs"
            valued="-o --output --socket"
            arguments=("file")
            ;;
        "stream diff")
            options="-h --help -o --output --socket --epoch-a --epoch-b"
            valued="-o --output --socket --epoch-a --epoch-b"
            arguments=("file" "file")
            ;;
        "stream convert")
            options="-h --help -o --output --socket --epoch"
            valued="-o --output --socket --epoch"
            arguments=("file" "file")
            ;;
        "stream cut")
            options="-h --help -o --output --socket --epoch"
            valued="-o --output --socket --epoch"
            arguments=("file" "file")
            ;;
        "stream send")
            options="-h --help -o --output --socket --to --domain --banner --json --config"
            valued="-o --output --socket --to --domain --config"
            arguments=("file")
            ;;
    esac
}

_remusctl_value() {
    # $1: a command and one of its options: prints what kind of word follows
    case "$1" in
        " -o" | " --output") echo "words:table json yaml" ;;
        " --socket") echo "file" ;;
        "list -o" | "list --output") echo "words:table json yaml" ;;
        "agent -o" | "agent --output") echo "words:table json yaml" ;;
        "status -o" | "status --output") echo "words:table json yaml" ;;
        "topology -o" | "topology --output") echo "words:table json yaml" ;;
        "history -o" | "history --output") echo "words:table json yaml" ;;
        "watch -o" | "watch --output") echo "words:table json yaml" ;;
        "top -o" | "top --output") echo "words:table json yaml" ;;
        "protect -o" | "protect --output") echo "words:table json yaml" ;;
        "protect --peer") echo "peer" ;;
        "reprotect -o" | "reprotect --output") echo "words:table json yaml" ;;
        "reprotect --peer") echo "peer" ;;
        "pause -o" | "pause --output") echo "words:table json yaml" ;;
        "resume -o" | "resume --output") echo "words:table json yaml" ;;
        "unprotect -o" | "unprotect --output") echo "words:table json yaml" ;;
        "failover -o" | "failover --output") echo "words:table json yaml" ;;
        "failover --fenced-host") echo "peer" ;;
        "switchover -o" | "switchover --output") echo "words:table json yaml" ;;
        "forget -o" | "forget --output") echo "words:table json yaml" ;;
        "probe -o" | "probe --output") echo "words:table json yaml" ;;
        "probe --peer") echo "peer" ;;
        "fence-check -o" | "fence-check --output") echo "words:table json yaml" ;;
        "events -o" | "events --output") echo "words:table json yaml" ;;
        "selftest -o" | "selftest --output") echo "words:table json yaml" ;;
        "selftest --config") echo "file" ;;
        "selftest --supervisor") echo "file" ;;
        "support-bundle -o" | "support-bundle --output") echo "words:table json yaml" ;;
        "support-bundle --config") echo "file" ;;
        "support-bundle --state") echo "file" ;;
        "validate-config -o" | "validate-config --output") echo "words:table json yaml" ;;
        "stream -o" | "stream --output") echo "words:table json yaml" ;;
        "stream verify -o" | "stream verify --output") echo "words:table json yaml" ;;
        "stream inspect -o" | "stream inspect --output") echo "words:table json yaml" ;;
        "stream diff -o" | "stream diff --output") echo "words:table json yaml" ;;
        "stream convert -o" | "stream convert --output") echo "words:table json yaml" ;;
        "stream cut -o" | "stream cut --output") echo "words:table json yaml" ;;
        "stream send -o" | "stream send --output") echo "words:table json yaml" ;;
        "stream send --to") echo "peer" ;;
        "stream send --domain") echo "domain" ;;
        "stream send --config") echo "file" ;;
        *) echo none ;;
    esac
}

_remusctl() {
    local current="${COMP_WORDS[COMP_CWORD]}" command="" options valued word taken=0 i
    local -a arguments
    COMPREPLY=()
    _remusctl_command ""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ " $valued " == *" $word "* ]]; then
            ((i + 1 == COMP_CWORD)) && { _remusctl_offer "$(_remusctl_value "$command $word")" "$current"; return; }
            ((i++))
        elif [[ $word != -* ]]; then
            if [[ ${arguments[0]:-} == words:* && -z ${command#stream} ]]; then
                command="${command:+$command }$word"
                _remusctl_command "$command"
                taken=0
            else
                ((taken++))
            fi
        fi
    done
    if [[ $current == -* ]]; then
        _remusctl_offer "words:$options" "$current"
    else
        _remusctl_offer "${arguments[taken]:-none}" "$current"
    fi
}

complete -F _remusctl remusctl
