; The installer for one person's account: no administrator, no driver, no service.
; `cargo xtask dist --windows` calls it with
;   VERSION   the program's version, "1.2.3"
;   TREE      the folder whose files are installed
;   LISTS     the folder with install.nsh and uninstall.nsh, the files of TREE one by one
;   OUT       the installer to write
; `/S` installs without a question, `/D=C:\folder` (last, without quotes) elsewhere.

Unicode true
Target amd64-unicode
ManifestDPIAware true
RequestExecutionLevel user
SetCompressor /SOLID lzma
; Two of the files differ in one byte; a dictionary as large as both stores them once.
SetCompressorDictSize 192

!include "MUI2.nsh"
!include "LogicLib.nsh"
!include "FileFunc.nsh"

!define KEY "Software\Microsoft\Windows\CurrentVersion\Uninstall\Neurino"
!define TOAST "Software\Classes\AppUserModelId\com.neurino.app"
!define RUN "Software\Microsoft\Windows\CurrentVersion\Run"
; Held by the program while its window or its tray icon is there.
!define RUNNING "com.neurino.app-sim"
; Microsoft's identifier of the Edge WebView2 runtime, which shows the window.
!define WEBVIEW "Microsoft\EdgeUpdate\Clients\{F3017226-FE2A-4295-8BDF-00C3A9A7E4C5}"

Name "Neurino"
OutFile "${OUT}"
InstallDir "$LOCALAPPDATA\Programs\Neurino"
InstallDirRegKey HKCU "${KEY}" "InstallLocation"
BrandingText "Neurino ${VERSION}"

VIProductVersion "${VERSION}.0"
VIAddVersionKey "ProductName" "Neurino"
VIAddVersionKey "ProductVersion" "${VERSION}"
VIAddVersionKey "FileVersion" "${VERSION}"
VIAddVersionKey "FileDescription" "Neurino's installer"
VIAddVersionKey "LegalCopyright" "The Neurino authors"

!define MUI_ICON "..\..\icons\icon.ico"
!define MUI_UNICON "..\..\icons\icon.ico"
!define MUI_ABORTWARNING
!define MUI_FINISHPAGE_RUN "$INSTDIR\neurino.exe"
!insertmacro MUI_PAGE_DIRECTORY
!insertmacro MUI_PAGE_INSTFILES
!insertmacro MUI_PAGE_FINISH
!insertmacro MUI_UNPAGE_CONFIRM
!insertmacro MUI_UNPAGE_INSTFILES
!insertmacro MUI_LANGUAGE "English"
!insertmacro MUI_LANGUAGE "German"

LangString Running ${LANG_ENGLISH} "Neurino is running. Quit it from its icon beside the clock, then try again."
LangString Running ${LANG_GERMAN} "Neurino läuft noch. Beende es über sein Symbol neben der Uhr und versuche es dann noch einmal."
LangString RunningNode ${LANG_ENGLISH} "Neurino runs without a window (neurino.com). End it with Ctrl+C in its console, or as it was started, then try again."
LangString RunningNode ${LANG_GERMAN} "Neurino läuft ohne Fenster (neurino.com). Beende es mit Strg+C in seiner Konsole, oder so, wie es gestartet wurde, und versuche es dann noch einmal."
LangString NoWebView ${LANG_ENGLISH} "Neurino's window needs Microsoft's WebView2 runtime, which is missing here. Open its download page?"
LangString NoWebView ${LANG_GERMAN} "Für das Fenster von Neurino fehlt hier Microsofts WebView2-Laufzeit. Soll die Download-Seite geöffnet werden?"
LangString Forget ${LANG_ENGLISH} "Delete your settings, earnings and models too, and keys that lie in files? Without its twelve words a deleted key is gone for good, and its points with it. $\r$\n$\r$\nNo keeps everything for another installation."
LangString Forget ${LANG_GERMAN} "Auch deine Einstellungen, Einnahmen und Modelle löschen, und Schlüssel, die in Dateien liegen? Ohne seine zwölf Wörter ist ein gelöschter Schlüssel für immer weg, und seine Punkte mit ihm. $\r$\n$\r$\nNein behält alles für eine neue Installation."
LangString Kept ${LANG_ENGLISH} "Your settings, keys, earnings and models stay where they are:"
LangString Kept ${LANG_GERMAN} "Deine Einstellungen, Schlüssel, Einnahmen und Modelle bleiben, wo sie sind:"

; Ends the installer while the program runs: its files could not be replaced. The window and its icon
; hold the mutex; a node without a window holds its own file, which nobody can write meanwhile.
!macro REFUSE_WHILE_RUNNING UN
Function ${UN}RefuseWhileRunning
  again:
  System::Call 'kernel32::OpenMutex(i 0x100000, i 0, t "${RUNNING}") p .r0'
  ${If} $0 P<> 0
    System::Call 'kernel32::CloseHandle(p r0)'
    MessageBox MB_RETRYCANCEL|MB_ICONEXCLAMATION "$(Running)" /SD IDCANCEL IDRETRY again
    SetErrorLevel 2
    Abort
  ${EndIf}
  ${If} ${FileExists} "$INSTDIR\neurino.com"
    ClearErrors
    FileOpen $0 "$INSTDIR\neurino.com" a
    ${If} ${Errors}
      MessageBox MB_RETRYCANCEL|MB_ICONEXCLAMATION "$(RunningNode)" /SD IDCANCEL IDRETRY again
      SetErrorLevel 2
      Abort
    ${EndIf}
    FileClose $0
  ${EndIf}
FunctionEnd
!macroend
!insertmacro REFUSE_WHILE_RUNNING ""
!insertmacro REFUSE_WHILE_RUNNING "un."

Function .onInit
  Call RefuseWhileRunning
FunctionEnd

Section
  ; Another folder may have been chosen meanwhile.
  Call RefuseWhileRunning
  SetOutPath "$INSTDIR"
  ; What an older version installed and this one does not must not stay behind.
  ${If} ${FileExists} "$INSTDIR\uninstall.exe"
    ExecWait '"$INSTDIR\uninstall.exe" /S /KEEPSTART _?=$INSTDIR'
  ${EndIf}
  !include "${LISTS}\install.nsh"
  SetOutPath "$INSTDIR"
  WriteUninstaller "$INSTDIR\uninstall.exe"

  CreateShortcut "$SMPROGRAMS\Neurino.lnk" "$INSTDIR\neurino.exe"
  WriteRegStr HKCU "${KEY}" "DisplayName" "Neurino"
  WriteRegStr HKCU "${KEY}" "DisplayVersion" "${VERSION}"
  WriteRegStr HKCU "${KEY}" "DisplayIcon" "$INSTDIR\neurino.exe"
  WriteRegStr HKCU "${KEY}" "Publisher" "The Neurino authors"
  WriteRegStr HKCU "${KEY}" "InstallLocation" "$INSTDIR"
  WriteRegStr HKCU "${KEY}" "UninstallString" '"$INSTDIR\uninstall.exe"'
  WriteRegStr HKCU "${KEY}" "QuietUninstallString" '"$INSTDIR\uninstall.exe" /S'
  ; The name under which Windows shows the program's notifications.
  WriteRegStr HKCU "${TOAST}" "DisplayName" "Neurino"
  WriteRegDWORD HKCU "${KEY}" "NoModify" 1
  WriteRegDWORD HKCU "${KEY}" "NoRepair" 1
  ${GetSize} "$INSTDIR" "/S=0K" $0 $1 $2
  WriteRegDWORD HKCU "${KEY}" "EstimatedSize" $0

  ; Part of Windows 11 and of every Windows 10 that was updated since 2022.
  ReadRegStr $0 HKLM "SOFTWARE\WOW6432Node\${WEBVIEW}" "pv"
  ${If} $0 == ""
    ReadRegStr $0 HKCU "Software\${WEBVIEW}" "pv"
  ${EndIf}
  ${If} $0 == ""
    MessageBox MB_YESNO|MB_ICONINFORMATION "$(NoWebView)" /SD IDNO IDNO +2
    ExecShell "open" "https://go.microsoft.com/fwlink/p/?LinkId=2124703"
  ${EndIf}
SectionEnd

Function un.onInit
  Call un.RefuseWhileRunning
FunctionEnd

Section "Uninstall"
  ; Only what was installed: the folder may hold what is not ours.
  !include "${LISTS}\uninstall.nsh"
  ; What the program fetched and set aside to update itself.
  RMDir /r "$INSTDIR\.neurino-update"
  Delete "$INSTDIR\neurino.exe.old"
  Delete "$INSTDIR\neurino.com.old"
  Delete "$INSTDIR\uninstall.exe"
  RMDir "$INSTDIR"
  ${GetParameters} $0
  ${GetOptions} $0 "/KEEPSTART" $1
  ${If} ${Errors}
    Delete "$SMPROGRAMS\Neurino.lnk"
    DeleteRegValue HKCU "${RUN}" "Neurino"
    DeleteRegKey HKCU "${KEY}"
    DeleteRegKey HKCU "${TOAST}"
    ; Without a question (`/S`) everything is kept.
    MessageBox MB_YESNO|MB_ICONQUESTION|MB_DEFBUTTON2 "$(Forget)" /SD IDNO IDYES forget
    DetailPrint "$(Kept)"
    DetailPrint "$APPDATA\Neurino, $LOCALAPPDATA\Neurino"
    Goto kept
    forget:
    RMDir /r "$APPDATA\Neurino"
    RMDir /r "$LOCALAPPDATA\Neurino"
    kept:
  ${EndIf}
SectionEnd
