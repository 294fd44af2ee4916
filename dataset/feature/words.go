package feature

import (
	"strings"

	"github.com/cespare/xxhash/v2"
)

// A meaning is the set of grammars in which a word is known.
type meaning uint32

const (
	sqlWord      meaning = 1 << iota // keyword of SQL
	sqlStatement                     // can begin a statement
	sqlLogic                         // joins conditions
	sqlCall                          // function
	sqlTiming                        // waits
	sqlSchema                        // system table, variable, procedure
	shellCommand                     // command of a shell
	binFolder                        // folder of commands
	sensitive                        // file or folder that attacks read
	tagName                          // tag that can carry script
	scriptCall                       // function of scripts in browsers
	scriptWord                       // object of browsers
	scheme                           // URL scheme
	wrapper                          // scheme that reaches files or services
	scriptScheme                     // scheme that runs script
	xmlWord                          // word of XML declarations
	codeCall                         // server-side function that runs code
	headerName                       // HTTP header
	probe                            // scanners ask for it
	internalHost                     // host that only the inside should reach
	lookup                           // lookup of a logging library
	scannerTool                      // user agent: scanner, attack tool
	libraryTool                      // user agent: library, client, crawler
	browserTool                      // user agent: browser
	commonUser                       // account name tried first
)

var vocabulary = []struct {
	meaning meaning
	words   string
}{
	{sqlWord, `select union insert update delete drop from where having order group by into values exec execute declare
		cast convert all distinct limit offset join case when then else end null table dual begin as waitfor create alter
		truncate replace handler procedure analyse shutdown set if outfile dumpfile exists any some between in is rownum top`},
	{sqlStatement, `select insert update delete drop create alter exec execute declare waitfor shutdown truncate set if iif begin
		merge grant revoke call show copy backup`},
	{sqlLogic, `and or xor not like rlike regexp between in is having div mod`},
	{sqlCall, `sleep benchmark concat concat_ws group_concat char chr ascii ord substring substr mid hex unhex pg_sleep
		extractvalue updatexml load_file version database user current_user session_user system_user schema count floor rand
		elt if ifnull nullif coalesce cast convert length md5 make_set field row_count generate_series randomblob
		regexp_substring crypt_key xmltype ctxsys dbms_pipe utl_inaddr get_host_address receive_message upper lower
		make_time exp geometrycollection polygon multipoint name_const row json_keys quote load_extension iif dbms_lock user_lock dbms_pipe like`},
	{sqlTiming, `sleep benchmark pg_sleep waitfor delay dbms_pipe dbms_lock user_lock generate_series randomblob`},
	{sqlSchema, `information_schema sysobjects syscolumns sysusers sysibm systables all_users all_tables pg_catalog pg_user
		pg_shadow sqlite_master msysaccessobjects xp_cmdshell xp_dirtree xp_regread sp_executesql sp_oacreate
		table_schema table_name column_name character_sets utl_http utl_inaddr dbms_pipe ctxsys domain_users
		openrowset opendatasource sysmaster`},
	{shellCommand, `cat ls id whoami uname wget curl ping nc ncat netcat bash sh zsh ksh csh dash chmod chown rm echo sleep
		ifconfig ipconfig nslookup dig cmd powershell python python2 python3 perl ruby php tftp ftp busybox kill pwd ps netstat
		traceroute tracert mkdir cp mv touch head tail less more grep awk sed cut tr sort find xargs env printenv set export
		sudo su passwd useradd adduser net dir type del copy telnet ssh scp crontab service systemctl iptables ulimit nohup
		mount dd tar gzip gunzip unzip base64 openssl lynx fetch uptime free df lscpu nproc hostname w who last history
		printf test true false exec eval source expr reboot shutdown killall pkill enable shell system apt yum waitfor
		certutil bitsadmin wmic reg regsvr32 rundll32 mshta cscript wscript lsof socat gcc make rem ver start`},
	{binFolder, `bin usr sbin local opt c d windows winnt system32`},
	{sensitive, `etc passwd shadow hosts boot ini win inf proc self environ cmdline fd htaccess htpasswd
		bash_history id_rsa authorized_keys system32 winnt sam repair inetpub wwwroot access_log
		error_log issue motd fstab resolv sudoers cnf odbc autoexec bat asa`},
	{tagName, `script img svg iframe object embed body style link meta form input video audio marquee math base applet frame
		frameset isindex layer ilayer bgsound table td tr div xml html head a button details select textarea keygen
		image animate set handler listener xss source picture template portal foreignobject`},
	{scriptCall, `alert prompt confirm eval settimeout setinterval fromcharcode unescape decodeuricomponent atob write
		writeln expression function execscript open assign import fetch postmessage`},
	{scriptWord, `document cookie window location innerhtml outerhtml localstorage xmlhttprequest srcdoc fromcharcode
		javascript vbscript onerror onload constructor prototype`},
	{scheme, `http https ftp ftps file php data javascript vbscript expect phar zip gopher dict ldap ldaps jar jndi rmi smb
		ssh2 ogg rar glob compress netdoc tftp sftp ws wss mailto iiop dns`},
	{wrapper, `file php expect phar zip gopher dict ldap ldaps jar jndi rmi smb ssh2 ogg rar glob compress netdoc tftp iiop`},
	{scriptScheme, `javascript vbscript livescript data mocha`},
	{xmlWord, `doctype entity element attlist cdata xml notation include xinclude`},
	{codeCall, `phpinfo system passthru shell_exec exec popen proc_open eval assert base64_decode gzinflate str_rot13
		create_function call_user_func preg_replace include include_once require require_once file_get_contents
		file_put_contents fopen readfile fputs fwrite unserialize print_r var_dump getruntime processbuilder runtime
		__import__ __class__ __globals__ subprocess os popen2 pcntl_exec die move_uploaded_file ini_set`},
	{headerName, `set cookie content location host connection transfer http x refresh status server`},
	{probe, `admin administrator phpmyadmin pma wp login setup install backup backups test console manager cgi bin shell
		config old tmp upload uploads private secret db database sql dump git svn env actuator jenkins solr struts axis2
		invoker jmx xmlrpc phpinfo webdav owa autodiscover boaform hnap1 telescope vendor phpunit debug status server
		info passwd root conf bak logs vti_bin msadc scripts iisadmin sqladmin mysqladmin dbadmin myadmin webadmin siteadmin`},
	{internalHost, `localhost metadata internal intranet localdomain`},
	{lookup, `jndi`},
	{scannerTool, `nikto sqlmap nmap masscan zgrab nessus openvas acunetix wpscan dirbuster gobuster dirb wfuzz ffuf hydra
		medusa w3af arachni skipfish netsparker burp burpsuite zap nuclei havij jorgee morfeus zmeu whatweb fimap
		metasploit paros webshag libssh2 libssh putty paramiko jsch censys shodan censysinspect expanse netcraft
		internetmeasurement projectdiscovery wapiti vega commix xsser joomscan droopescan feroxbuster httpx katana xray sqlninja`},
	{libraryTool, `curl wget python requests urllib urllib2 urllib3 httpclient java go http okhttp libwww perl lwp ruby
		php guzzle axios node fetch aiohttp scrapy bot crawler spider slurp googlebot bingbot baiduspider yandexbot
		winhttp postman insomnia powershell httpie apachebench mechanize phantomjs headlesschrome selenium puppeteer`},
	{browserTool, `mozilla applewebkit gecko chrome safari firefox opera msie trident edge edg konqueror lynx links seamonkey`},
	{commonUser, `root admin test guest user administrator oracle postgres ubuntu pi support ftp ftpuser mysql nagios git
		jenkins tomcat hadoop deploy www www-data ec2-user ubnt default info service operator minecraft teamspeak ts3 zabbix ansible
		vagrant ec2 centos debian sysadmin backup server nobody web webmaster supervisor tech monitor cisco`},
}

// Kinds of tokens, the letters of the triples that the kind columns count.
// Punctuation stands for itself.
const (
	kindEdge   = '^' + 0x80 // start or end of a part
	kindWord   = 'w'
	kindNumber = '0'
	kindHex    = 'x'
	kindFolder = 'b' // of commands
	kindBreak  = '\n'
)

type knownWord struct {
	hash    uint64
	meaning meaning
	kind    byte
}

const (
	knownSlots   = 4096
	knownLongest = 20 // bytes of the longest known word
)

// known is the vocabulary as a hash table with open addressing. A word is
// told by its xxhash64 alone.
var known = func() (table [knownSlots]knownWord) {
	kinds := []struct {
		meaning meaning
		kind    byte
	}{
		{sqlTiming, 't'}, {sqlSchema, 'i'}, {sqlLogic, 'l'}, {sqlStatement, 's'}, {sqlWord, 'q'}, {scriptScheme, 'j'},
		{lookup, 'n'}, {scheme, 'u'}, {tagName, 'g'}, {scriptCall, 'r'}, {scriptWord, 'o'}, {codeCall, 'p'},
		{sqlCall, 'f'}, {shellCommand, 'c'}, {sensitive, 'e'}, {binFolder, kindFolder}, {xmlWord, 'm'}, {probe, 'a'},
	}
	meanings := map[string]meaning{}
	var words []string
	for _, v := range vocabulary {
		for _, word := range strings.Fields(v.words) {
			if len(word) > knownLongest {
				panic("feature: internal error: known word too long")
			}
			if meanings[word] == 0 {
				words = append(words, word)
			}
			meanings[word] |= v.meaning
		}
	}
	for _, word := range words {
		k := knownWord{hash: xxhash.Sum64String(word), meaning: meanings[word], kind: kindWord}
		for _, x := range kinds {
			if k.meaning&x.meaning != 0 {
				k.kind = x.kind
				break
			}
		}
		slot := k.hash % knownSlots
		for table[slot].kind != 0 {
			slot = (slot + 1) % knownSlots
		}
		table[slot] = k
	}
	return table
}()

// meaningOf returns what is known of the word with the given xxhash64, and the
// kind of its token.
func meaningOf(hash uint64) (meaning, byte) {
	for slot := hash % knownSlots; ; slot = (slot + 1) % knownSlots {
		switch {
		case known[slot].kind == 0:
			return 0, kindWord
		case known[slot].hash == hash:
			return known[slot].meaning, known[slot].kind
		}
	}
}
